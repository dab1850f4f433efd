"use strict";
/* Draws every panel on one x axis. Labels reach the page only as text, never as markup. */
const overproofCharts = (() => {
  const source = document.getElementById("chart-data");
  const data = JSON.parse(source.textContent);
  const whole = { min: 0, max: data.end_s };
  const charts = [];
  const AXIS_PX = 64;
  const DASHES = { main: [], second: [6, 3], third: [10, 3, 2, 3], fourth: [2, 2], fifth: [14, 4], sixth: [5, 2, 1, 2], seventh: [8, 2, 2, 2, 2, 2], eighth: [1, 4], good: [], bad: [], faint: [2, 3] };
  const WIDTHS = { main: 1.6, good: 1.6, bad: 2.4 };

  const ink = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const font = px => px + "px " + getComputedStyle(document.body).fontFamily;
  const widthOf = element => Math.max(240, element.clientWidth);

  const seconds = value => value.toFixed(whole.max - whole.min > 600 ? 0 : 2) + " s";
  const wallClock = value => new Date(data.t0_ms + value * 1000).toISOString().slice(11, 23) + " UTC";
  const figure = value => {
    if (value == null) return "–";
    if (Number.isInteger(value)) return value.toLocaleString("en");
    const size = Math.abs(value);
    return size >= 1000 ? Math.round(value).toLocaleString("en") : size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 1 ? value.toFixed(2) : value.toPrecision(2);
  };

  const setRange = range => {
    const span = Math.max(range.max - range.min, whole.max / 5000, 0.01);
    const min = Math.max(whole.min, Math.min(range.min, whole.max - span));
    charts.forEach(chart => chart.setScale("x", { min, max: Math.min(whole.max, min + span) }));
  };

  const hatch = (context, x, y, width, height, colour) => {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.strokeStyle = colour;
    context.globalAlpha = 0.25;
    context.lineWidth = 1;
    const step = 9 * devicePixelRatio;
    context.beginPath();
    for (let at = x - height; at < x + width; at += step) { context.moveTo(at, y + height); context.lineTo(at + height, y); }
    context.stroke();
    context.restore();
  };
  const bandEnds = (chart, band) => {
    const left = Math.max(chart.valToPos(band.start, "x", true), chart.bbox.left);
    const end = band.end == null ? whole.max : band.end;
    const right = Math.min(chart.valToPos(end, "x", true), chart.bbox.left + chart.bbox.width);
    return [left, Math.max(right, left + (band.kind === "stage" ? 0 : 2 * devicePixelRatio))];
  };
  const isSeen = (chart, t) => t >= chart.scales.x.min && t <= chart.scales.x.max;
  const drawBands = chart => {
    const { ctx, bbox } = chart;
    data.bands.forEach((band, index) => {
      const [left, right] = bandEnds(chart, band);
      if (right <= left || left > bbox.left + bbox.width || right < bbox.left) return;
      if (band.kind === "stage" && index % 2) return;
      ctx.fillStyle = ink(band.kind);
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      if (band.kind === "fault") hatch(ctx, left, bbox.top, right - left, bbox.height, ink("fault-line"));
    });
  };
  const drawMarkers = chart => {
    const { ctx, bbox } = chart;
    data.markers.filter(marker => isSeen(chart, marker.t)).forEach(marker => {
      const x = Math.round(chart.valToPos(marker.t, "x", true)) + 0.5;
      ctx.save();
      ctx.strokeStyle = ink(marker.name === "t_inject" ? "fault-line" : "ink");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash(marker.name === "t_inject" ? [] : [3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
      ctx.restore();
    });
  };
  /* Labels of bands and markers, each in the first row where it covers no other. */
  const drawLabels = chart => {
    const { ctx, bbox } = chart;
    const ratio = devicePixelRatio, rowHeight = 15 * ratio, rows = [];
    ctx.save();
    ctx.font = font(12 * ratio);
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    const labels = [
      ...data.bands.map(band => ({ text: band.kind === "fault" ? "fault: " + band.label : band.label, x: bandEnds(chart, band)[0], until: bandEnds(chart, band)[1], colour: band.kind === "stage" ? "soft" : band.kind + "-line" })),
      ...data.markers.filter(marker => isSeen(chart, marker.t)).map(marker => ({ text: marker.label, x: chart.valToPos(marker.t, "x", true), until: Infinity, colour: "ink" })),
    ].filter(label => label.until > bbox.left && label.x < bbox.left + bbox.width).sort((a, b) => a.x - b.x);
    labels.forEach(label => {
      const needed = ctx.measureText(label.text).width + 8 * ratio;
      const x = Math.min(label.x, bbox.left + bbox.width - needed);
      let row = rows.findIndex(end => end <= x);
      if (row < 0) row = rows.length;
      if ((row + 1) * rowHeight > bbox.height) return;
      rows[row] = x + needed;
      ctx.fillStyle = ink("sheet");
      ctx.globalAlpha = 0.8;
      ctx.fillRect(x + 2 * ratio, bbox.top + row * rowHeight, needed - 4 * ratio, rowHeight);
      ctx.globalAlpha = 1;
      ctx.fillStyle = ink(label.colour);
      ctx.fillText(label.text, x + 4 * ratio, bbox.top + (row + 0.5) * rowHeight);
    });
    ctx.restore();
  };

  const axes = (unit, isLast) => [
    { stroke: () => ink("soft"), grid: { stroke: () => ink("grid"), width: 1 }, ticks: { stroke: () => ink("grid"), width: 1, size: 4 }, size: isLast ? 34 : 8, font: font(11), values: (_, ticks) => isLast ? ticks.map(tick => tick + " s") : ticks.map(() => "") },
    { stroke: () => ink("soft"), grid: { stroke: () => ink("grid"), width: 1 }, ticks: { show: false }, size: AXIS_PX, gap: 6, font: font(11), space: 26, values: (_, ticks) => ticks.map(tick => tick.toLocaleString("en", { maximumFractionDigits: 6 })) },
  ];
  /* uPlot's own sync carries both the cursor and the zoom of a drag to every chart with the same key. */
  const common = height => ({
    height,
    padding: [6, 14, 0, 0],
    cursor: { sync: { key: "overproof", setSeries: false }, drag: { x: true, y: false, setScale: true }, y: false, points: { size: 6 } },
    hooks: { drawClear: [drawBands], draw: [drawMarkers], setCursor: [chart => show(chart)] },
  });
  const floor = isCount => (_, low, high) => {
    if (low == null) return [0, 1];
    const isNear = !isCount && low > 0 && low > high * 0.6;  /* temperatures and clocks: zero would flatten them */
    const room = Math.max((high - low) * 0.12, Math.abs(high) * 0.02, 1e-9);
    return [isNear ? low - room : Math.min(0, low), high + room];
  };
  const lineOf = series => ({
    label: series.label,
    stroke: () => ink(series.role),
    width: (WIDTHS[series.role] ?? 1.4) * (series.again ? 2 : 1),
    dash: DASHES[series.role],
    spanGaps: false,
    paths: series.stepped ? uPlot.paths.stepped({ align: 1 }) : undefined,
    points: { show: series.t.length < 40 && !series.stepped, size: 4 },
    value: (_, value) => value == null ? "" : figure(value),
  });

  const swatch = series => {
    const shape = (name, parts) => Object.entries(parts).reduce((made, [key, value]) => { made.setAttribute(key, value); return made; }, document.createElementNS("http://www.w3.org/2000/svg", name));
    const drawn = shape("svg", { class: "swatch ink-" + series.role, width: 30, height: 8, "aria-hidden": "true" });
    drawn.append(shape("line", { x1: 0, x2: 30, y1: 4, y2: 4, "stroke-width": (WIDTHS[series.role] ?? 1.4) * (series.again ? 2 : 1) + 0.4, "stroke-dasharray": DASHES[series.role].join(" ") }));
    return drawn;
  };
  const addPanel = (panel, index, isLast) => {
    const holder = document.querySelector("#panel-" + index + " .plot");
    const joined = uPlot.join(panel.series.map(series => [series.t, series.v]), panel.series.map(() => [1, 1]));
    const chart = new uPlot({
      ...common(isLast ? 150 : 124),
      width: widthOf(holder),
      scales: { x: { time: false, min: whole.min, max: whole.max }, y: { range: floor(panel.series.some(series => series.stepped)) } },
      axes: axes(panel.unit, isLast),
      series: [{}, ...panel.series.map(lineOf)],
      legend: { live: true, mount: (_, legend) => holder.parentElement.querySelector(".legend").append(legend) },
    }, joined, holder);
    /* What tells lines apart without colour stands in the legend too. */
    holder.parentElement.querySelectorAll(".legend .u-marker").forEach((mark, place) => {
      const series = panel.series[place - 1];
      if (series) mark.replaceWith(swatch(series));
    });
    charts.push(chart);
  };
  const addStrip = () => {
    const holder = document.getElementById("strip");
    if (!data.bands.length && !data.markers.length) { holder.hidden = true; return; }
    const base = common(15 * (data.markers.length + Math.min(2, data.bands.length)) + 12);  /* short stages take turns */
    charts.push(new uPlot({
      ...base,
      hooks: { ...base.hooks, draw: [drawMarkers, drawLabels] },
      width: widthOf(holder),
      scales: { x: { time: false, min: whole.min, max: whole.max }, y: { range: [0, 1] } },
      axes: [{ show: false }, { show: true, size: AXIS_PX, grid: { show: false }, ticks: { show: false }, values: () => [] }],
      series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
      legend: { show: false },
    }, [[whole.min, whole.max], [null, null]], holder));
  };

  const clock = document.getElementById("clock");
  let cursorAt = null;
  const show = chart => {
    const left = chart.cursor.left;
    if (left == null || left < 0) return;
    cursorAt = chart.posToVal(left, "x");
    clock.textContent = seconds(cursorAt) + " after the start, " + wallClock(cursorAt);
  };
  const moveTo = value => {
    const chart = charts[charts.length - 1];
    const { min, max } = chart.scales.x;
    const at = Math.min(max, Math.max(min, value));
    charts.forEach(each => each.setCursor({ left: each.valToPos(at, "x"), top: 10 }));
  };
  const zoomBy = factor => {
    const { min, max } = charts[charts.length - 1].scales.x;
    const centre = cursorAt != null && cursorAt >= min && cursorAt <= max ? cursorAt : (min + max) / 2;
    const half = (max - min) * factor / 2;
    setRange({ min: centre - half, max: centre + half });
  };
  const zoomFault = () => {
    const faults = data.bands.filter(band => band.kind === "fault");
    const times = [...faults.flatMap(band => [band.start, band.end == null ? whole.max : band.end]), ...data.markers.map(marker => marker.t)];
    const min = Math.min(...times), max = Math.max(...times), room = Math.max((max - min) * 0.3, 2);
    setRange({ min: min - room, max: max + room });
  };
  const onKey = event => {
    const { min, max } = charts[charts.length - 1].scales.x;
    const step = (max - min) / (event.shiftKey ? 10 : 100);
    const actions = {
      ArrowLeft: () => moveTo((cursorAt ?? min) - step), ArrowRight: () => moveTo((cursorAt ?? min) + step),
      Home: () => moveTo(min), End: () => moveTo(max),
      "+": () => zoomBy(0.5), "=": () => zoomBy(0.5), "-": () => zoomBy(2), "0": () => setRange(whole), Escape: () => setRange(whole),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  };

  const resize = () => charts.forEach(chart => chart.setSize({ width: widthOf(chart.root.parentElement), height: chart.height }));
  const redraw = () => charts.forEach(chart => chart.redraw(false, true));
  const start = () => {
    if (!document.getElementById("charts")) return;
    addStrip();
    data.panels.forEach((panel, index) => addPanel(panel, index, index === data.panels.length - 1));
    if (!charts.length) return;
    document.getElementById("tools").hidden = false;
    document.getElementById("hint").hidden = false;
    const fault = document.getElementById("zoom-fault");
    fault.hidden = !data.bands.some(band => band.kind === "fault");
    fault.addEventListener("click", zoomFault);
    document.getElementById("zoom-in").addEventListener("click", () => zoomBy(0.5));
    document.getElementById("zoom-out").addEventListener("click", () => zoomBy(2));
    document.getElementById("zoom-all").addEventListener("click", () => setRange(whole));
    document.getElementById("charts").addEventListener("keydown", onKey);
    document.getElementById("charts").addEventListener("dblclick", () => setRange(whole));
    window.addEventListener("resize", resize);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    window.addEventListener("beforeprint", () => { document.documentElement.classList.add("printing"); redraw(); });
    window.addEventListener("afterprint", () => { document.documentElement.classList.remove("printing"); redraw(); });
  };
  start();
  return charts;
})();
