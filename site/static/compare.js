"use strict";
// The page Compare: shows the methods that the address names. Every figure and every test is Python's; Holm's correction alone is
// made here, over the pairs that are shown (Holm 1979).
const data = JSON.parse(document.querySelector("#compared").textContent);
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, ...parts) {
  const element = ["svg", "path", "line", "circle", "rect"].includes(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== false && value !== null) element.setAttribute(key, value === true ? "" : value);
  element.append(...parts.filter((part) => part !== null && part !== ""));
  return element;
}

const glyph = (method) => make("svg", { class: `glyph k-${method.kind}`, viewBox: "-7 -7 14 14", "aria-hidden": "true" }, make("path", { d: method.shape }));
const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
const chance = (p) => {
  const texts = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((more) => p.toFixed((p < 0.1 ? 3 : 2) + more));
  return p < 0.001 ? "p < 0.001" : `p = ${texts.find((text) => Math.sign(Number(text) - 0.05) === Math.sign(p - 0.05)) ?? texts[8]}`;
};

function holm(chances) {
  const order = chances.map((p, place) => [p, place]).filter(([p]) => p !== null).sort((a, b) => a[0] - b[0]);
  const corrected = chances.map(() => null);
  let largest = 0;
  order.forEach(([p, place], smaller) => {
    largest = Math.max(largest, Math.min(1, p * (order.length - smaller)));
    corrected[place] = largest;
  });
  return corrected;
}

// The pair in the order asked for: of a reversed one points change their sign, and a ratio is inverted.
function pairOf(a, b) {
  const found = data.pairs.find(({ pair }) => pair.includes(a) && pair.includes(b));
  if (found.pair[0] === a) return found;
  const turned = (test, turn) => test && { ...test, value: turn(test.value), low: test.high === null ? null : turn(test.high), high: test.low === null ? null : turn(test.low) };
  return { ...found, points: turned(found.points, (value) => 0 - value), speed: turned(found.speed, (value) => 1 / value) };
}

const pairsOf = (chosen) => chosen.flatMap((a, at) => chosen.slice(at + 1).map((b) => [a, b, pairOf(a, b)]));

// Short names of the chosen methods without the words that all of them begin with.
function brief(chosen) {
  const words = chosen.map((place) => data.methods[place].short.split(" "));
  let shared = 0;
  while (words.every((own) => own.length > shared + 1 && own[shared] === words[0][shared])) shared += 1;
  return words.map((own) => own.slice(shared).join(" "));
}

function pickers(chosen) {
  const slots = Math.min(data.most, data.methods.length);
  return Array.from({ length: slots }, (_, slot) => {
    const options = data.methods.map((method, place) => make("option", { value: place, selected: chosen[slot] === place, disabled: chosen.includes(place) && chosen[slot] !== place, title: method.title }, method.short));
    if (slot > 1) options.unshift(make("option", { value: "", selected: chosen[slot] === undefined }, "no other"));
    const method = data.methods[chosen[slot]];
    return make("label", {}, method ? glyph(method) : "", make("span", { class: "sr" }, `Method ${slot + 1}`), make("select", { "data-slot": slot }, ...options));
  });
}

function interval(test, widest) {
  const x = (value) => 150 + (Math.max(-1, Math.min(1, value / widest)) * 150);
  const bar = test.low === null ? [] : [make("line", { class: "iv", x1: x(test.low), x2: x(test.high), y1: 12, y2: 12 })];
  const parts = [make("line", { class: "axis", x1: 0, x2: 300, y1: 12, y2: 12 }), make("line", { class: "zero", x1: 150, x2: 150, y1: 2, y2: 22 }), ...bar, make("circle", { cx: x(test.value), cy: 12, r: 5 })];
  return make("svg", { class: "ivl", viewBox: "-6 0 312 24", "aria-hidden": "true" }, ...parts);
}

function card(a, b, found, p, pSpeed, widest) {
  const [mine, theirs] = [data.methods[a], data.methods[b]];
  const { points, speed } = found;
  const told = p !== null && p < 0.05;
  const more = points.value > 0 ? mine : theirs;
  const equal = found.same !== null && found.same === data.examples;
  const verdict = equal ? "The same answers." : told ? `${more.short} keeps more.` : p === null ? "Not tested." : "Cannot be told apart.";
  const detail = p === null ? (equal ? "" : points.method) : `${signed(points.low)} to ${signed(points.high)}, ${chance(p)}`;
  const faster = speed && (pSpeed !== null && pSpeed < 0.05 ? `${(speed.value > 1 ? mine : theirs).short} is faster.` : pSpeed === null ? "Not tested." : "A tie.");
  const range = speed && speed.low !== null ? `, ${speed.low.toFixed(2)}–${speed.high.toFixed(2)}` : "";
  return make("div", { class: `card pr${told ? " told" : ""}` },
    make("h3", {}, make("span", {}, glyph(mine), mine.short), " less ", make("span", {}, glyph(theirs), theirs.short)),
    make("p", { class: "big" }, equal ? "0.00" : signed(points.value), make("span", {}, ` points of ${data.metric}`)),
    make("p", { class: "verd" }, verdict, make("small", {}, [detail, found.caveat].filter(Boolean).join(", "))),
    interval(points, widest),
    make("div", { class: "lab" }, make("span", {}, `← ${theirs.short}`), make("span", {}, `${mine.short} →`)),
    make("p", { class: "spd" }, ...(speed ? [make("b", {}, `${speed.value.toFixed(2)}×`), ` the speed${range}. ${faster}`] : ["Not timed in one run, so no ratio."])));
}

function showSame(chosen, section) {
  const others = [...chosen, ...data.methods.map((method, place) => place).filter((place) => data.methods[place].kind === "baseline" && !chosen.includes(place))];
  const known = pairsOf(chosen).some(([, , pair]) => pair.same !== null);
  section.hidden = !known;
  if (!known) return;
  section.querySelector("h3 span").textContent = `· of ${data.examples.toLocaleString("en")}, in %`;
  const names = brief(chosen);
  const name = (place) => names[chosen.indexOf(place)] ?? data.methods[place].short;
  const head = make("tr", {}, make("td"), ...others.map((b) => make("th", { scope: "col" }, name(b))));
  const rows = chosen.map((a) => make("tr", {}, make("th", { scope: "row" }, name(a)), ...others.map((b) => {
    const pair = a === b ? null : pairOf(a, b);
    if (!pair || pair.same === null) return make("td", { class: "self" }, "–");
    const share = (100 * pair.same) / data.examples;
    const cell = make("td", {}, share === 100 ? "100" : Math.min(share, 99.9).toFixed(1));
    cell.style.setProperty("--p", `${Math.max(0, (share - 70) * 1.2).toFixed(0)}%`);
    return cell;
  })));
  section.querySelector("table").replaceChildren(make("caption", { class: "sr" }, "Share of the same answers"), make("thead", {}, head), make("tbody", {}, ...rows));
}

function showRight(chosen, section) {
  const counts = {};
  for (const [word, count] of Object.entries(data.right)) {
    const own = chosen.map((place) => word[place]).join("");
    counts[own] = (counts[own] ?? 0) + count;
  }
  const words = Object.keys(counts).filter((word) => !word.includes("-"));
  section.hidden = !words.length;
  const whole = (word) => (new Set(word).size === 1 ? word[0] === "1" ? 2 : 1 : 0);
  words.sort((a, b) => whole(b) - whole(a) || counts[b] - counts[a]);
  const most = Math.max(1, ...words.filter((word) => !whole(word)).map((word) => counts[word]));
  const boxes = (word) => make("span", { class: "d", role: "img", "aria-label": chosen.map((place, at) => `${data.methods[place].short} ${word[at] === "1" ? "right" : "wrong"}`).join(", ") },
    ...chosen.map((place, at) => make("i", { class: `k-${data.methods[place].kind}${word[at] === "1" ? " y" : ""}` })));
  const all = chosen.length === 2 ? "both" : "all";
  const bar = (count) => make("svg", { class: "b", viewBox: "0 0 100 14", preserveAspectRatio: "none", "aria-hidden": "true" }, make("rect", { class: "bg", width: 100, height: 14 }), make("rect", { class: "val", width: (100 * count) / most, height: 14 }));
  const key = make("div", { class: "pp legend" }, make("span", { class: "d", "aria-hidden": "true" }, ...chosen.map((place) => make("i", { class: `y k-${data.methods[place].kind}` }))), make("span", {}, `${brief(chosen).join(", ")}; filled: right`), make("span"));
  const rows = words.map((word) => make("div", { class: "pp" }, boxes(word), whole(word) ? make("span", {}, whole(word) === 2 ? all : "none") : bar(counts[word]), make("b", {}, counts[word].toLocaleString("en"))));
  section.querySelector(".pat").replaceChildren(key, ...rows);
}

function showSides(chosen, table) {
  const head = make("tr", {}, make("td"), ...chosen.map((place) => make("th", { scope: "col" }, glyph(data.methods[place]), make("a", { href: data.methods[place].page }, data.methods[place].short), make("small", {}, data.methods[place].how))));
  const rows = data.figures.map((name, at) => {
    const shown = chosen.map((place) => data.methods[place].figures[at]);
    if (shown.every((figure) => !figure.text)) return null;
    return make("tr", {}, make("th", { scope: "row" }, name), ...shown.map((figure) => make("td", {}, make("b", figure.imprecise ? { class: "imprecise", title: figure.imprecise } : {}, figure.text ?? "–"), figure.interval ? make("small", {}, figure.interval) : "")));
  });
  table.replaceChildren(make("caption", { class: "sr" }, "All figures side by side"), make("thead", {}, head), make("tbody", {}, ...rows.filter(Boolean)));
  table.style.setProperty("--n", chosen.length);
}

function named() {
  const names = location.hash.slice(1).split(",").map((name) => { try { return decodeURIComponent(name); } catch { return name; } });
  const places = names.map((name) => data.methods.findIndex((method) => method.name === name)).filter((place) => place >= 0);
  const unique = [...new Set(places)].slice(0, data.most);
  return unique.length > 1 ? unique : data.chosen;
}

const main = document.querySelector("#chosen");
let chosen = named();

function show() {
  const names = brief(chosen);
  names[0] = names[0][0].toUpperCase() + names[0].slice(1);
  document.querySelector("#heading").textContent = `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
  main.querySelector(".pickers").replaceChildren(...pickers(chosen));
  const shown = pairsOf(chosen);
  const points = holm(shown.map(([, , pair]) => pair.points.p));
  const speeds = holm(shown.map(([, , pair]) => pair.speed?.p ?? null));
  const widest = 1.08 * Math.max(0.5, ...shown.flatMap(([, , { points: test }]) => [test.value, test.low ?? 0, test.high ?? 0].map(Math.abs)));
  main.querySelector(".pairs").replaceChildren(...shown.map(([a, b, pair], at) => card(a, b, pair, points[at], speeds[at], widest)));
  showSame(chosen, main.querySelector("#same"));
  showRight(chosen, main.querySelector("#right"));
  showSides(chosen, main.querySelector(".sbs"));
}

function address() {
  history.replaceState(null, "", `#${chosen.map((place) => encodeURIComponent(data.methods[place].name)).join(",")}`);
}

main.hidden = false;
main.querySelector(".pickers").addEventListener("submit", (event) => event.preventDefault());
main.querySelector(".pickers").addEventListener("change", (event) => {
  const slot = Number(event.target.dataset.slot);
  const others = chosen.slice();
  if (event.target.value === "") others.splice(slot, 1);
  else others[Math.min(slot, others.length)] = Number(event.target.value);
  chosen = others;
  show();
  address();
  main.querySelector(`[data-slot="${slot}"]`).focus();
});
const link = document.querySelector("#link");
link.hidden = !navigator.clipboard;
link.addEventListener("click", async () => { await navigator.clipboard.writeText(location.href); link.textContent = "Copied"; });
addEventListener("hashchange", () => {
  if (!location.hash.includes("notes")) { chosen = named(); show(); }
});
show();
