// Times in the reader's own zone.
(function () {
  "use strict";

  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

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

  function showTimes(root) {
    for (const time of root.querySelectorAll("time[data-shown]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      if (time.dataset.shown === "at") {
        time.textContent = local.format(at);
      } else {
        const seconds = (at - Date.now()) / 1000;
        time.textContent = Math.abs(seconds) < 1 ? "just now"
          : seconds > 0 ? "in " + words(seconds) : words(-seconds) + " ago";
      }
    }
  }

  showTimes(document);
  setInterval(() => showTimes(document), 30000);
  document.addEventListener("axme:shown", (event) => showTimes(event.target));
})();
