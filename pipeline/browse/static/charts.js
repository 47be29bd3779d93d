// Draws what /charts.json says: a heat map of the current build's buckets, a histogram of every
// measurement and score, and colours. A click adds to the condition, or names a bucket of the
// build; the tables under each chart have the same numbers and links.
"use strict";

(() => {
  const root = document.getElementById("charts");
  if (!root) return;
  const go = root.dataset.go || ""; // where a clause leads to; empty: nowhere
  const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 6 });
  const drawn = []; // [element, function that gives its options]

  // ── small pieces ──────────────────────────────────────────────────────────────────────────────

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const clips = (count) => `${count.toLocaleString("en")} clip${count === 1 ? "" : "s"}`;

  function hours(value) {
    const seconds = 3600 * value;
    if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
    if (seconds < 3599.5) {
      const whole = Math.round(seconds);
      return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
    }
    return `${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })} h`;
  }

  function span(bar) {
    if (bar.low === bar.high) return number.format(bar.low);
    if (bar.low === null) return `≤ ${number.format(bar.high)}`;
    if (bar.high === null) return `> ${number.format(bar.low)}`;
    return `${number.format(bar.low)} to ${number.format(bar.high)}`;
  }

  // AND binds more than OR and less than all else.
  function narrowed(term) {
    const where = (root.dataset.where || "").trim();
    if (!where) return term;
    return /\bor\b/i.test(where) ? `(${where}) AND ${term}` : `${where} AND ${term}`;
  }

  // A term is part of a condition, or {place}: a bucket of the build.
  function address(term) {
    const asked = new URLSearchParams();
    const where = typeof term === "string" ? narrowed(term) : (root.dataset.where || "").trim();
    const place = typeof term === "string" ? root.dataset.place : term.place;
    if (where) asked.set("where", where);
    if (place) asked.set("place", place);
    return `${go}?${asked}`;
  }

  function named(text, term) {
    return go ? element("a", { href: address(term), textContent: text }) : text;
  }

  function table(heads, rows) {
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", textContent: text })));
    const body = rows.map((cells) =>
      element("tr", {}, ...cells.map((cell, n) => element("td", { className: n ? "num" : "" }, cell))));
    return element("details", {},
      element("summary", { textContent: "Numbers" }),
      element("div", { className: "scroll" },
        element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
  }

  // ── drawing ───────────────────────────────────────────────────────────────────────────────────

  const base = () => ({
    animation: false,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: color("--muted") },
    // richText: drawn, never parsed as HTML
    tooltip: {
      renderMode: "richText",
      confine: true,
      backgroundColor: color("--raised"),
      borderColor: color("--line"),
      borderWidth: 1,
      textStyle: { color: color("--text"), fontSize: 12 },
    },
  });

  const axis = () => ({
    axisLine: { lineStyle: { color: color("--line") } },
    axisTick: { show: false },
    axisLabel: { color: color("--muted"), fontSize: 11, hideOverlap: true },
    splitLine: { lineStyle: { color: color("--line"), opacity: 0.6 } },
  });

  function draw(place, options, clicked) {
    const chart = echarts.init(place, null, { renderer: "canvas" });
    const redraw = () => chart.setOption({ ...base(), ...options() }, true);
    redraw();
    if (go) {
      chart.getZr().on("click", (event) => {
        const term = clicked(chart, [event.offsetX, event.offsetY]);
        if (term) window.location.assign(address(term));
      });
      chart.getZr().on("mousemove", (event) => {
        const term = clicked(chart, [event.offsetX, event.offsetY]);
        chart.getZr().setCursorStyle(term ? "pointer" : "default");
      });
    }
    new ResizeObserver(() => chart.resize()).observe(place);
    drawn.push(redraw);
  }

  // Charts out of sight are drawn when they come near.
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      target.draw();
    }
  }, { rootMargin: "400px" });

  function later(place, options, clicked) {
    place.draw = () => draw(place, options, clicked);
    near.observe(place);
  }

  // ── heat map ──────────────────────────────────────────────────────────────────────────────────

  const length = (duration) => (duration === "image" ? 0 : Number.parseFloat(duration));

  function heatMap(found) {
    const durations = [...new Set(found.cells.map((cell) => cell.duration))].sort((a, b) => length(a) - length(b));
    const shapes = [...new Set(found.cells.map((cell) => `${cell.resolution} · ${cell.aspect}`))];
    const at = (cell) => [durations.indexOf(cell.duration), shapes.indexOf(`${cell.resolution} · ${cell.aspect}`)];
    const cellAt = new Map(found.cells.map((cell) => [at(cell).join(), cell]));
    let by = "hours";
    const text = (cell, narrow) => {
      if (by === "clips") return cell.clips.toLocaleString("en");
      return narrow ? hours(cell.hours).replace(" min", "") : hours(cell.hours);
    };
    const place = element("div", {
      className: "canvas",
      role: "img",
      ariaLabel: `Heat map of ${clips(found.cells.reduce((sum, cell) => sum + cell.clips, 0))} in ${found.cells.length} buckets`,
    });

    place.style.height = `${30 + 25 * shapes.length}px`;

    function options() {
      const narrow = place.clientWidth < 480;
      const most = Math.max(...found.cells.map((cell) => cell[by]), 1e-9);
      const data = found.cells.map((cell) => {
        const strength = Math.sqrt(cell[by] / most);
        return { value: [...at(cell), strength], label: { color: color(strength > 0.55 ? "--on-accent" : "--text") } };
      });
      return {
        grid: { left: narrow ? 82 : 96, right: 4, top: 4, bottom: 26 },
        xAxis: { ...axis(), type: "category", data: durations, axisLabel: { ...axis().axisLabel, interval: 0, hideOverlap: false, fontSize: narrow ? 10 : 11 } },
        yAxis: { ...axis(), type: "category", data: shapes },
        visualMap: { show: false, min: 0, max: 1, dimension: 2, inRange: { color: [color("--ramp"), color("--accent")] } },
        tooltip: {
          ...base().tooltip,
          formatter: ({ value }) => {
            const cell = cellAt.get(value.slice(0, 2).join());
            return `${cell.resolution} px, ${cell.aspect}, ${cell.duration}\n${clips(cell.clips)}, ${hours(cell.hours)}`;
          },
        },
        series: [{
          type: "heatmap",
          data,
          label: { show: true, fontSize: narrow ? 10 : 12, formatter: ({ value }) => text(cellAt.get(value.slice(0, 2).join()), narrow) },
          itemStyle: { borderColor: color("--page"), borderWidth: 2, borderRadius: 4 },
          emphasis: { itemStyle: { borderColor: color("--text") } },
        }],
      };
    }

    function clicked(chart, point) {
      const where = chart.convertFromPixel({ seriesIndex: 0 }, point);
      const cell = where && chart.containPixel("grid", point) && cellAt.get(where.join());
      return cell ? { place: cell.place } : "";
    }

    const kinds = ["hours", "clips"].map((kind) => {
      const button = element("button", { type: "button", textContent: kind, ariaPressed: String(kind === by) });
      button.addEventListener("click", () => {
        by = kind;
        for (const other of kinds) other.ariaPressed = String(other === button);
        echarts.getInstanceByDom(place)?.setOption({ ...base(), ...options() }, true);
      });
      return button;
    });
    later(place, options, clicked);
    const build = root.dataset.build ? ` of build ${root.dataset.build}` : " of the current build";
    const rows = found.cells.map((cell) => [
      named(`${cell.resolution} px, ${cell.aspect}, ${cell.duration}`, { place: cell.place }),
      cell.clips.toLocaleString("en"), hours(cell.hours),
    ]);
    return element("section", { id: "heat" },
      element("div", { className: "head" },
        element("h2", { textContent: `Buckets${build}` }),
        element("div", { className: "switch", role: "group", ariaLabel: "Count by" }, ...kinds)),
      element("figure", { className: "chart" },
        element("figcaption", {}, element("p", { textContent: "px of the short side and width × height, by duration" })),
        place, table(["bucket", "clips", "footage"], rows)));
  }

  // ── histograms ────────────────────────────────────────────────────────────────────────────────

  function bars(names, counts, text, wheres, words) {
    const place = element("div", { className: "canvas", role: "img", ariaLabel: words });
    const options = () => ({
      grid: { left: 2, right: 10, top: 8, bottom: 20, containLabel: false },
      xAxis: { ...axis(), type: "category", data: names, axisLabel: { ...axis().axisLabel, interval: "auto" } },
      yAxis: { ...axis(), type: "value", axisLabel: { show: false }, splitNumber: 2 },
      tooltip: {
        ...base().tooltip,
        trigger: "axis",
        axisPointer: { type: "shadow", shadowStyle: { color: color("--accent"), opacity: 0.1 } },
        formatter: ([bar]) => text(bar.dataIndex),
      },
      series: [{
        type: "bar",
        data: counts.map((count) => count || "-"),
        barCategoryGap: "12%",
        barMinHeight: 2,
        itemStyle: { color: color("--accent") },
      }],
    });
    const clicked = (chart, point) => {
      if (!chart.containPixel("grid", point)) return "";
      const [index] = chart.convertFromPixel({ seriesIndex: 0 }, point);
      return counts[index] ? wheres[index] : "";
    };
    later(place, options, clicked);
    return place;
  }

  function histogram(found) {
    const caption = element("figcaption", {},
      element("h3", { textContent: found.name }), element("p", { textContent: found.text }));
    const rows = found.bars.filter((bar) => bar.clips).map((bar) => [named(span(bar), bar.where), bar.clips.toLocaleString("en")]);
    if (found.without) rows.push([named("no value", `${found.name} IS NULL`), found.without.toLocaleString("en")]);
    const numbers = table([found.name, "clips"], rows);
    if (found.bars.length === 1) {
      const [bar] = found.bars;
      const only = element("p", { className: "only" }, named(span(bar), bar.where), ` in ${bar.clips === 1 ? "the one clip" : `all ${clips(bar.clips)}`}`);
      return element("figure", { className: "chart" }, caption, only, numbers);
    }
    const ends = found.bars.map((bar) => (bar.high === null ? `> ${number.format(bar.low)}` : number.format(bar.high)));
    const words = `Histogram of ${found.name}: ${clips(found.bars.reduce((sum, bar) => sum + bar.clips, 0))} `
      + `from ${number.format(found.lowest)} to ${number.format(found.highest)}`;
    const place = bars(ends, found.bars.map((bar) => bar.clips),
      (n) => `${span(found.bars[n])}\n${clips(found.bars[n].clips)}`, found.bars.map((bar) => bar.where), words);
    place.id = `histogram-${found.name}`;
    return element("figure", { className: "chart" }, caption, place, numbers);
  }

  function colors(found) {
    const place = bars(found.map((one) => one.name), found.map((one) => one.clips),
      (n) => `${found[n].name}\n${clips(found[n].clips)}`, found.map((one) => one.where),
      `Bar chart of ${found.length} dominant colours`);
    const rows = found.map((one) => [named(one.name, one.where), one.clips.toLocaleString("en")]);
    return element("figure", { className: "chart" },
      element("figcaption", {},
        element("h3", { textContent: "dominant_colors" }),
        element("p", { textContent: "clips that have the colour among their up to three" })),
      place, table(["colour", "clips"], rows));
  }

  // ── all of it ─────────────────────────────────────────────────────────────────────────────────

  async function load() {
    const inline = document.getElementById("charts-data");
    if (inline) return JSON.parse(inline.textContent);
    const answer = await fetch(root.dataset.src, { headers: { Accept: "application/json" } });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error);
    return found;
  }

  function show(found) {
    const parts = [];
    if (found.cells.length) parts.push(heatMap(found));
    if (found.histograms.length) {
      parts.push(element("section", { id: "histograms" },
        element("h2", { textContent: `${clips(found.clips)} by what was measured` }),
        element("div", { className: "charts-grid" },
          ...found.histograms.map(histogram), ...(found.colors.length ? [colors(found.colors)] : []))));
    }
    if (!parts.length) parts.push(element("p", { className: "note", textContent: "No clip to count." }));
    root.replaceChildren(...parts);
  }

  function start() {
    load().then(show).catch((error) => {
      root.replaceChildren(element("p", { className: "alarm pre", role: "alert", textContent: error.message }));
    });
  }

  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const redraw of drawn) redraw();
  });

  const closed = root.closest("details");
  if (closed && !closed.open) closed.addEventListener("toggle", start, { once: true });
  else start();
})();
