"use strict";
/* Figures over runs: one chart for each metric, a mark for the outcome of each run, a line where something changed. */
(() => {
  const data = JSON.parse(document.getElementById("chart-data").textContent);
  const ink = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const roles = ["main", "second", "third", "fourth"];
  const dashes = [[], [6, 3], [10, 3, 2, 3], [2, 3]];
  const charts = [];
  const font = px => px + "px " + getComputedStyle(document.body).fontFamily;
  const widthOf = holder => Math.max(240, holder.clientWidth);
  const drawMarks = group => chart => {
    const { ctx, bbox } = chart;
    const ratio = devicePixelRatio;
    ctx.save();
    group.changes.forEach(index => {
      const x = chart.valToPos(index, "x", true) - (chart.valToPos(1, "x", true) - chart.valToPos(0, "x", true)) / 2;
      ctx.strokeStyle = ink("soft"); ctx.setLineDash([3 * ratio, 3 * ratio]); ctx.lineWidth = ratio;
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      ctx.fillStyle = ink("soft"); ctx.font = font(10 * ratio); ctx.textAlign = "center"; ctx.fillText("◆", x, bbox.top + 9 * ratio);
    });
    const signs = { pass: "✓", fail: "✗", inconclusive: "?" };
    ctx.textAlign = "center"; ctx.font = "700 " + font(11 * ratio);
    group.outcomes.forEach((outcome, index) => {
      ctx.fillStyle = ink(outcome);
      ctx.fillText(signs[outcome] || "", chart.valToPos(index, "x", true), bbox.top + 10 * ratio);
    });
    ctx.restore();
  };
  document.querySelectorAll(".history-charts").forEach(place => {
    const group = data.groups[Number(place.dataset.group)];
    if (group.x.length < 2) return;
    group.panels.forEach(panel => {
      const figure = document.createElement("figure");
      figure.className = "panel";
      const caption = document.createElement("figcaption");
      const bold = document.createElement("b");
      bold.textContent = panel.title;
      caption.append(bold);
      const legend = document.createElement("div");
      legend.className = "legend";
      const holder = document.createElement("div");
      holder.className = "plot";
      figure.append(caption, legend, holder);
      place.append(figure);
      const high = Math.max(...panel.series.flatMap(series => series.v.filter(value => value != null)), panel.least);
      charts.push(new uPlot({
        width: widthOf(holder), height: 140, padding: [6, 14, 0, 0],
        cursor: { sync: { key: "history-" + place.dataset.group }, drag: { x: false, y: false }, y: false },
        hooks: { draw: [drawMarks(group)] },
        scales: { x: { time: false, range: () => [-0.5, group.x.length - 0.5] }, y: { range: () => [0, high * 1.35] } },
        axes: [
          { stroke: () => ink("soft"), grid: { show: false }, size: 34, font: font(11), splits: () => group.x.map((_, index) => index).filter(index => index % Math.ceil(group.x.length / 8) === 0), values: (_, ticks) => ticks.map(tick => (group.x[tick] || "").slice(5)) },
          { stroke: () => ink("soft"), grid: { stroke: () => ink("grid"), width: 1 }, ticks: { show: false }, size: 64, font: font(11) },
        ],
        series: [{ label: "run", value: (_, value) => group.x[value] || "" }, ...panel.series.map((series, index) => ({
          label: series.label, stroke: () => ink(roles[index % roles.length]), dash: dashes[index % dashes.length], width: 1.6, points: { show: true, size: 5 },
          value: (_, value) => value == null ? "–" : Number(value.toPrecision(4)).toLocaleString("en"),
        }))],
        legend: { live: true, mount: (_, table) => legend.append(table) },
      }, [group.x.map((_, index) => index), ...panel.series.map(series => series.v)], holder));
    });
  });
  window.addEventListener("resize", () => charts.forEach(chart => chart.setSize({ width: widthOf(chart.root.parentElement), height: 140 })));
  const redraw = () => charts.forEach(chart => chart.redraw(false, true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => { document.documentElement.classList.add("printing"); redraw(); });
  window.addEventListener("afterprint", () => { document.documentElement.classList.remove("printing"); redraw(); });
})();
