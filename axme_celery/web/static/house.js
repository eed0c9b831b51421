// Live pages, times in the reader's own zone, and keys for those who want them. Every page works without this.
(function () {
  "use strict";

  // -- times --

  // By the server's clock: a reader's own may be wrong.
  const started = new Date(document.documentElement.dataset.now || Date.now());
  const skew = started - Date.now();
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const short = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

  function words(seconds) {
    const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "m"], [60, "m", 1, "s"]];
    for (const [large, largeName, small, smallName] of units) {
      const rounded = Math.round(seconds / small) * small;
      if (rounded >= large) {
        const rest = Math.floor((rounded % large) / small);
        return Math.floor(rounded / large) + largeName + (rest ? " " + rest + smallName : "");
      }
    }
    return Math.round(seconds) + "s";
  }

  function showTimes() {
    for (const time of document.querySelectorAll("time[data-shown]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const seconds = (at - Date.now() - skew) / 1000;
      const shown = time.dataset.shown === "at" ? local.format(at)
        : Math.abs(seconds) < 1 ? "just now"
        : seconds > 0 ? "in " + words(seconds) : words(-seconds) + " ago";
      if (time.textContent !== shown) time.textContent = shown;
    }
    for (const text of document.querySelectorAll("text[data-at]")) {
      const form = text.closest("svg").dataset.span < 7200 ? clock : short;
      text.textContent = form.format(new Date(text.dataset.at));
    }
  }
  showTimes();
  setInterval(showTimes, 60000);

  // -- live: a stream says that something happened, and the page fetches what it shows --

  const source = document.querySelector("[data-live]");
  const address = source && source.dataset.live;
  const note = document.getElementById("live-note");
  const parts = () => document.querySelectorAll("[hx-get][hx-trigger='axme:refresh']");
  let stream = null, poll = null, again = null, etag = null, last = source && source.dataset.since;

  function say(text) {
    if (note && note.textContent !== text) note.textContent = text;
  }

  function refresh() {
    for (const part of parts()) part.dispatchEvent(new Event("axme:refresh"));
  }

  function happened(event) {
    if (event.lastEventId === last) return;
    last = event.lastEventId;
    refresh();
  }

  function connect() {
    clearTimeout(again);
    if (!address || document.hidden || stream) return;
    const from = /\/inbox$/.test(address) ? "" : "?since=" + encodeURIComponent(last || "0");
    stream = new EventSource(address + from);
    stream.onopen = () => { say(""); stopPolling(); };
    stream.addEventListener("intent", happened);
    stream.addEventListener("inbox", happened);
    stream.addEventListener("end", () => { disconnect(); refresh(); });
    stream.onerror = () => {
      // 2: it was refused, and the browser will not try again by itself.
      if (stream && stream.readyState === 2) {
        disconnect();
        say("Live updates are off; this page looks every few seconds instead.");
        startPolling();
        again = setTimeout(connect, 60000);
      }
    };
  }

  function disconnect() {
    if (stream) stream.close();
    stream = null;
  }

  async function look() {
    try {
      const answer = await fetch(address + "/state", { headers: etag ? { "If-None-Match": etag } : {}, cache: "no-store" });
      if (answer.status === 401 || answer.redirected) return location.reload();
      if (answer.status === 200) {
        if (etag) refresh();
        etag = answer.headers.get("ETag");
      }
    } catch { /* away for a moment; the next look tells */ }
  }

  function startPolling() {
    if (!poll) { look(); poll = setInterval(look, 5000); }
  }

  function stopPolling() {
    clearInterval(poll);
    poll = etag = null;
  }

  if (address) {
    connect();
    // A hidden page gives its stream to others: a browser has six of them per server, and a server so many threads.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) { disconnect(); stopPolling(); clearTimeout(again); }
      else { refresh(); connect(); }
    });
    addEventListener("pagehide", disconnect);
  }

  // Lists, and how far running work has come, nobody announces: they are looked at now and then.
  const slow = document.querySelector("[data-poll]");
  if (slow) {
    setInterval(() => {
      const when = slow.dataset.pollWhen;
      const busy = slow.contains(document.activeElement) && document.activeElement !== document.body;
      if (!document.hidden && !busy && (!when || document.querySelector(when))) refresh();
    }, Number(slow.dataset.poll) * 1000);
  }

  document.addEventListener("htmx:after:swap", () => {
    showTimes();
    const state = document.getElementById("wait-state");
    const fields = document.getElementById("decide-fields");
    if (state && fields && state.dataset.open === "false" && !fields.disabled) {
      fields.disabled = true;
      say("This was decided elsewhere; nothing you typed was sent.");
    }
    const tally = document.querySelector("[data-count]");
    if (source && source.dataset.title && tally) {
      const count = Number(tally.dataset.count);
      document.title = (count ? "(" + count + ") " : "") + source.dataset.title;
    }
  });

  // What remains of the time, said at the moments at which it matters.
  const timer = document.querySelector("[role=timer] time");
  if (timer && note) {
    for (const [before, text] of [[3600, "One hour left."], [600, "Ten minutes left."], [60, "One minute left."]]) {
      const wait = new Date(timer.dateTime) - Date.now() - skew - before * 1000;
      if (wait > 0 && wait < 86400000) setTimeout(() => say(text), wait);
    }
  }

  // -- keys: j and k move, Enter opens, a and r go to a button and press nothing. They can be switched off. --

  const kept = "axme-keys";
  const off = () => { try { return localStorage.getItem(kept) === "off"; } catch { return false; } };
  const toggle = document.getElementById("keys");
  if (toggle) {
    toggle.hidden = false;
    const show = () => {
      toggle.textContent = off() ? "Turn on keys (j, k, a, r)" : "Turn off keys (j, k, a, r)";
    };
    toggle.addEventListener("click", () => {
      try { localStorage.setItem(kept, off() ? "on" : "off"); } catch { /* then they stay on */ }
      show();
    });
    show();
  }
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.isContentEditable;
    if (typing || event.ctrlKey || event.metaKey || event.altKey || off()) return;
    if (event.key === "j" || event.key === "k") {
      const lines = [...document.querySelectorAll(".cards .title, table.list tbody td:first-child a")];
      const at = lines.indexOf(document.activeElement);
      const to = lines[event.key === "j" ? at + 1 : Math.max(0, at - 1)];
      if (to) { to.focus(); event.preventDefault(); }
    } else {
      const button = document.querySelector("[data-key='" + (/^[ar]$/.test(event.key) ? event.key : "none") + "']");
      if (button) { button.focus(); event.preventDefault(); }
    }
  });
})();
