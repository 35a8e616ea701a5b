// Draws the charts of a sweep's report with uPlot, which the page carries along. Plain JavaScript: it runs as it is.
"use strict";
(() => {
  const HEIGHT = 260;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const short = (value) =>
    value >= 1e6 ? `${value / 1e6}M` : value >= 1e3 ? `${Math.round(value / 100) / 10}k` : String(value);

  /** uPlot wants one list of x for all series; where a series has no point there is null. */
  function aligned({ series, baseline }) {
    const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
    const rows = series.map(({ points }) => {
      const byX = new Map(points.map((point) => [point[0], point]));
      return xs.map((x) => byX.get(x) ?? null);
    });
    const values = rows.map((row) => row.map((point) => point && point[1]));
    return { xs, rows, data: [xs, ...values, ...(baseline === null ? [] : [xs.map(() => baseline)])] };
  }

  /** The powers of ten in a range. */
  function decades(low, high) {
    const first = Math.ceil(Math.log10(low));
    const count = Math.floor(Math.log10(high)) - first + 1;
    return Array.from({ length: count }, (_, i) => 10 ** (first + i));
  }

  /** Draws the intervals as vertical lines through the points. */
  function intervals(rows) {
    return (plot, seriesIndex) => {
      const row = rows[seriesIndex - 1];
      if (row === undefined) return;
      const { ctx } = plot;
      ctx.save();
      ctx.strokeStyle = plot.series[seriesIndex].stroke();
      ctx.lineWidth = 1.5 * devicePixelRatio;
      for (const point of row) {
        if (point === null || point[2] === null) continue;
        const [x, low, high] = [
          plot.valToPos(point[0], "x", true),
          plot.valToPos(point[1] - point[2], "y", true),
          plot.valToPos(point[1] + point[2], "y", true),
        ];
        ctx.beginPath();
        ctx.moveTo(x, low);
        ctx.lineTo(x, high);
        ctx.stroke();
      }
      ctx.restore();
    };
  }

  function draw(chart, parent) {
    const { xs, rows, data } = aligned(chart);
    const axis = {
      stroke: color("--dim"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { show: false },
    };
    const few = chart.logX && xs.length <= 6;
    const splits = (_, __, low, high) => (few ? xs : decades(low, high));
    const options = {
      width: parent.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: {
        x: {
          time: false,
          distr: chart.logX ? 3 : 1,
          range: chart.logX ? (_, low, high) => [low / 1.3, high * 1.3] : undefined,
        },
      },
      axes: [
        {
          ...axis,
          label: chart.x,
          labelSize: 24,
          values: (_, splits) => splits.map((value) => (value === null ? "" : short(value))),
          ...(chart.logX && { splits, filter: (_, all) => all }),
        },
        { ...axis, label: chart.y, labelSize: 24, size: 54 },
      ],
      series: [
        {},
        ...chart.series.map(({ label, color: stroke, dash, points }) => ({
          label,
          stroke,
          dash,
          width: 2,
          spanGaps: true,
          points: { show: points.length < 30, size: 7, fill: stroke },
        })),
        ...(chart.baseline === null
          ? []
          : [
              {
                label: "no adapter",
                stroke: color("--dim"),
                dash: [3, 5],
                width: 1.5,
                points: { show: false },
              },
            ]),
      ],
      hooks: { drawSeries: [intervals(rows)] },
    };
    return new uPlot(options, data, parent);
  }

  function legend(chart) {
    const element = document.createElement("div");
    element.className = "legend";
    const entries = chart.series.map(({ label, color: c, dash }) => ({ label, c, dashed: dash.length > 0 }));
    if (chart.baseline !== null) entries.push({ label: "no adapter", c: color("--dim"), dashed: true });
    for (const { label, c, dashed } of entries) {
      const entry = document.createElement("span");
      entry.textContent = label;
      entry.style.setProperty("--c", c);
      if (dashed) entry.className = "dashed";
      element.append(entry);
    }
    return element;
  }

  const drawn = [];
  for (const chart of charts) {
    const parent = document.querySelector(`[data-section="${chart.section}"]`);
    const figure = document.createElement("div");
    figure.className = "chart";
    figure.dataset.rank = chart.rank ?? "";
    const title = document.createElement("h3");
    title.textContent = chart.title;
    const plot = document.createElement("div");
    plot.setAttribute("role", "img");
    plot.setAttribute(
      "aria-label",
      `${chart.title}: ${chart.y} against ${chart.x}; the numbers are in the table of all results`,
    );
    figure.append(title, plot, legend(chart));
    parent.append(figure);
    drawn.push({ chart, figure, plot, uplot: null });
  }

  /** Draws what is to be seen; learning curves of other ranks wait. */
  function show() {
    const select = document.getElementById("rank");
    for (const entry of drawn) {
      const seen = entry.chart.rank === null || String(entry.chart.rank) === select.value;
      entry.figure.hidden = !seen;
      if (!seen) continue;
      if (entry.uplot === null) entry.uplot = draw(entry.chart, entry.plot);
      else entry.uplot.setSize({ width: entry.plot.clientWidth, height: HEIGHT });
    }
  }
  document.getElementById("rank").addEventListener("change", show);
  addEventListener("resize", show);
  show();
})();
