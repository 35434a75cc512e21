"use strict";
// The page of a task: the pick under other limits, by the rule of harness/report/pick.py on the figures that Python wrote.
const board = document.querySelector("#board");
const methods = board ? JSON.parse(board.textContent) : null;

function fits(method, limits, sure) {
  if (method.speed === null || method.kept === null) return false;
  const held = method.kept[sure ? 1 : 0];
  if (held === null || held < limits.keep) return false;
  return ["p90", "p99", "size", "memory"].every((name) => limits[name] === null || (method[name] !== null && method[name] <= limits[name]));
}

// A figure with so many digits, or as many more as it takes not to read as its limit; harness/report/rounded.py has the same.
function apart(value, limit, digits, shown) {
  const texts = Array.from({ length: 9 }, (_, more) => shown(value, digits + more));
  return texts.find((text) => Math.sign(Number(text) - limit) === Math.sign(value - limit)) ?? texts[8];
}

const decimals = (value, digits) => value.toFixed(digits);
const significant = (value, digits) => String(Number(value.toPrecision(digits)));

function best(all, inside) {
  const fastest = inside.reduce((a, b) => (all[b].speed > all[a].speed ? b : a));
  const tied = inside.filter((place) => place === fastest || all[fastest].ties.includes(place));
  const better = (a, b) => {
    const [x, y] = [all[a], all[b]];
    return y.kept[0] - x.kept[0] || x.effort - y.effort || y.speed - x.speed;
  };
  const ship = tied.reduce((a, b) => (better(a, b) > 0 ? b : a));
  return [ship, tied.filter((place) => place !== ship)];
}

function pick(all, limits) {
  const within = (sure) => all.map((_, place) => place).filter((place) => fits(all[place], limits, sure));
  const inside = within(limits.sure);
  if (!inside.length) return { ship: null, tied: [], close: false, surely: null, inside };
  const [ship, tied] = best(all, inside);
  const close = !limits.sure && !fits(all[ship], limits, true);
  const certain = close ? within(true) : [];
  return { ship, tied, close, surely: certain.length ? best(all, certain)[0] : null, inside };
}

if (methods) {
  const form = document.querySelector(".limits");
  const fields = Object.fromEntries(["keep", "sure", "p90", "p99", "size", "memory"].map((name) => [name, document.getElementById(name)]));
  const output = form.querySelector("output");
  const initial = fields.keep.value;
  const all = methods.methods;

  const read = () => {
    const limits = { keep: Number(fields.keep.value) / 100, sure: fields.sure.checked };
    for (const name of ["p90", "p99", "size", "memory"]) {
      const value = Number(fields[name].value);
      limits[name] = fields[name].value !== "" && value > 0 ? value : null;
    }
    return limits;
  };

  const part = (name) => document.querySelector(`#answer [data-${name}]`);
  const put = (element, text, holder) => {
    (holder ?? element).textContent = text;
    element.hidden = !text;
  };

  function showAnswer(choice, limits) {
    const answer = document.querySelector("#answer");
    const found = choice.ship !== null;
    answer.classList.toggle("nothing", !found);
    answer.querySelector(".stats").hidden = !found;
    part("eyebrow").textContent = found ? methods.words.ship : "Nothing fits";
    const ship = all[choice.ship];
    part("title").textContent = found ? ship.title : "No method meets your limits";
    const key = found && (choice.tied.length ? "tied" : ship.speed <= 1 ? "baseline" : "fastest");
    part("why").textContent = found ? methods.words[key].replace("{n}", choice.inside.length) : "Loosen a limit.";
    put(part("tied"), choice.tied.map((place) => all[place].tie_text).join("; "), part("tied").querySelector("span"));
    const low = found && ship.kept[1] !== null ? `may keep only ${apart(100 * ship.kept[1], 100 * limits.keep, 2, decimals)}%` : "its accuracy has no interval";
    const surely = choice.surely === null ? "" : `; ${all[choice.surely].short} surely keeps enough`;
    put(part("close"), choice.close ? low + surely : "", part("close").querySelector("span:last-child"));
    put(part("command"), found ? ship.command : "", part("command").querySelector("code"));
    if (!found) return;
    const figures = [
      [ship.speed_text, `${methods.baseline}'s throughput`, ship.speed_interval],
      [ship.kept_text, `of its ${methods.metric} kept`, ship.kept_interval],
      [ship.size_text, "on disk", ""],
    ];
    answer.querySelectorAll(".stats div").forEach((cell, place) => {
      const [figure, what, interval] = figures[place];
      cell.querySelector("b").textContent = figure;
      const span = document.createElement("span");
      span.textContent = interval;
      cell.querySelector("small").replaceChildren(what, document.createElement("br"), span);
    });
  }

  function why(method, limits) {
    if (method.speed === null) return "no valid speed";
    if (method.kept === null) return "no accuracy to compare";
    const failures = [];
    const held = method.kept[limits.sure ? 1 : 0];
    if (held === null) failures.push("no interval of its accuracy");
    else if (held < limits.keep) failures.push(`${limits.sure ? "surely keeps" : "keeps"} ${apart(100 * held, 100 * limits.keep, 1, decimals)}%`);
    for (const [name, unit] of [["p90", "ms"], ["p99", "ms"], ["size", "MiB"], ["memory", "MiB"]]) {
      if (limits[name] === null) continue;
      if (method[name] === null) failures.push(`no ${name}${name === "p99" ? methods.words.tail : ""} was measured`);
      else if (method[name] > limits[name]) failures.push(`${name} ${apart(method[name], limits[name], 3, significant)} ${unit}`);
    }
    return failures.join(", ");
  }

  function showRows(choice, limits) {
    for (const row of document.querySelectorAll(".methods tbody")) {
      const place = Number(row.dataset.place);
      const method = all[place];
      const [picked, inside] = [place === choice.ship, choice.inside.includes(place)];
      row.classList.toggle("pick", picked);
      row.classList.toggle("out", !inside);
      const certain = fits(method, limits, true);
      const [kind, text] = picked ? ["best", "ship this"] : !inside ? ["", why(method, limits)] : method.baseline ? ["", "baseline"] : certain ? ["ok", "fits"] : ["maybe", "fits, close call"];
      const tag = row.querySelector(".verdict .tag");
      tag.className = `tag ${kind}`;
      tag.textContent = text;
    }
  }

  function showChart(choice, limits) {
    for (const plot of document.querySelectorAll(".plot")) {
      const [top, bottom, low, high] = ["top", "bottom", "low", "high"].map((name) => Number(plot.dataset[name]));
      const y = top + Math.min(Math.max((high - limits.keep) / (high - low), 0), 1) * (bottom - top);
      plot.querySelector(".zone").setAttribute("height", y - top);
      for (const end of ["y1", "y2"]) plot.querySelector(".bound").setAttribute(end, y);
      const text = plot.querySelector(".limit");
      text.setAttribute("y", Math.min(y + 16, bottom - 4));
      text.textContent = `your limit, ${(100 * limits.keep).toFixed(1)}%`;
      for (const mark of plot.querySelectorAll("[data-place]")) {
        mark.classList.toggle("picked", Number(mark.dataset.place) === choice.ship);
        mark.classList.toggle("out", !choice.inside.includes(Number(mark.dataset.place)));
      }
    }
  }

  function keepInAddress() {
    const state = new URLSearchParams();
    if (fields.keep.value !== initial) state.set("keep", fields.keep.value);
    if (fields.sure.checked) state.set("sure", "1");
    for (const name of ["p90", "p99", "size", "memory"]) if (fields[name].value) state.set(name, fields[name].value);
    const hash = state.toString() ? `#${state}` : "";
    if (location.hash !== hash) history.replaceState(null, "", hash || "#");
    for (const link of document.querySelectorAll(".seg a")) link.href = link.getAttribute("href").split("#")[0] + hash;
  }

  function show() {
    const limits = read();
    output.textContent = `${Number(fields.keep.value).toFixed(1)}%`;
    if (!methods.contested) return;
    const choice = pick(all, limits);
    showAnswer(choice, limits);
    showRows(choice, limits);
    showChart(choice, limits);
  }

  function restore() {
    const state = new URLSearchParams(location.hash.slice(1));
    fields.keep.value = state.get("keep") ?? initial;
    fields.sure.checked = state.get("sure") === "1";
    for (const name of ["p90", "p99", "size", "memory"]) fields[name].value = state.get(name) ?? "";
    show();
    keepInAddress();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { show(); keepInAddress(); });
  form.addEventListener("reset", () => setTimeout(() => { show(); keepInAddress(); }));
  addEventListener("hashchange", restore);
  if (location.hash.includes("=")) restore();

  const table = document.querySelector(".methods");
  const filter = document.querySelector("#filter");
  filter.hidden = false;
  filter.addEventListener("input", () => {
    for (const row of table.tBodies) row.hidden = !row.rows[0].cells[0].textContent.toLowerCase().includes(filter.value.toLowerCase());
  });
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.querySelector("button")?.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") !== "descending";
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (body) => {
        const cell = body.rows[0].cells[column];
        if (header.dataset.sort === "text") return cell.textContent.trim();
        return cell.dataset.order ? Number(cell.dataset.order) : null;
      };
      const bodies = [...table.tBodies].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "string" ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      table.append(...bodies);
    });
  });
}
