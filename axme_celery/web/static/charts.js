// Charts of the health page. The table beneath them says the same.
(function () {
  "use strict";

  const home = document.getElementById("charts");
  if (!home || !window.uPlot) return;
  const data = JSON.parse(home.dataset.charts);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bars = uPlot.paths.bars({ size: [0.7, 40] });
  let drawn = [];

  function axes(value) {
    const line = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    return [{ ...line, values: when, space: 70 }, { ...line, size: 64, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000, 1000000], ...(value ? { values: (_, all) => all.map(value) } : {}) }];
  }

  const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

  function when(_, moments) {
    let before = "";
    return moments.map((epoch) => {
      const at = new Date(epoch * 1000), today = day.format(at);
      const text = hour.format(at) + (today === before ? "" : "\n" + today);
      before = today;
      return text;
    });
  }

  function span(seconds) {
    if (seconds == null) return "";
    return seconds < 60 ? Math.round(seconds) + "s" : seconds < 3600 ? Math.round(seconds / 60) + "m"
      : seconds < 86400 ? (seconds / 3600).toFixed(1) + "h" : (seconds / 86400).toFixed(1) + "d";
  }

  function series(label, variable, more) {
    return { label, stroke: colour(variable), fill: colour(variable) + "55", width: 1.5, ...more };
  }

  function draw() {
    for (const one of drawn) one.destroy();
    const work = document.getElementById("chart-work"), waits = document.getElementById("chart-waits");
    const size = { width: work.clientWidth, height: 220 };
    drawn = [
      new uPlot({ ...size, axes: axes(), scales: { y: { range: (_, low, high) => [0, Math.max(high, 4)] } }, series: [{},
        series("submitted", "--busy", { fill: undefined, width: 2 }),
        series("completed", "--good", { paths: bars, points: { show: false } }),
        series("did not complete", "--bad", { paths: bars, points: { show: false } })] },
        [data.at, data.submitted, data.completed, data.not], work),
    ];
    if (!data.answers.some((count) => count)) {
      waits.textContent = "Nobody answered anything in this time.";
      waits.classList.add("empty");
      return;
    }
    drawn.push(
      new uPlot({ ...size, axes: axes(span), scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1)] } }, series: [{},
        series("median wait", "--wait", { spanGaps: true, points: { show: true }, value: (_, v) => span(v) })] },
        [data.at, data.waited], waits));
  }

  draw();
  let later;
  addEventListener("resize", () => { clearTimeout(later); later = setTimeout(draw, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
