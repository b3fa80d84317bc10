"use strict";
// Shows one item at a time and keeps the answers of one reader. Nothing leaves the page but the sheet that is saved.
const {sample, questions, widths, items} = JSON.parse(document.getElementById("items").textContent);
const the = (id) => document.getElementById(id);
const SHELF = `spinemet-adjudication:${sample}:`;
const GAP = 8, [SAGITTAL, CORONAL] = widths;
let reader = "", answers = {}, history = [], place = 0, unsaved = false;
let told = false;  // that all are answered: from then on `next` goes through them once more

// ---- what the browser keeps ------------------------------------------------------------------------------------
function shelf() {
  try { const box = window.localStorage; box.setItem(SHELF, "1"); box.removeItem(SHELF); return box; } catch { return null; }
}
function keep() {
  unsaved = true;
  try {
    const box = shelf();
    if (!box) throw new Error();
    box.setItem(SHELF + reader, JSON.stringify({answers, history: history.slice(-500), place}));
  } catch { warn(); }
}
function warn() {
  the("warning").textContent = "This browser does not keep your answers. Save the sheet before you close this page.";
  the("warning").hidden = false;
}
function kept(name) {
  try { return JSON.parse(shelf().getItem(SHELF + name)); } catch { return null; }
}
function readers() {
  const box = shelf();
  return box ? Object.keys(box).filter((key) => key.startsWith(SHELF)).map((key) => key.slice(SHELF.length)).sort() : [];
}

// ---- answers ---------------------------------------------------------------------------------------------------
const of = (item) => answers[item.id] || {};
const complete = (item) => questions.every(({name}) => of(item)[name]);
const count = () => items.filter(complete).length;
function put(field, value) {
  const item = items[place], before = of(item)[field] || "";
  if (before === value) return;
  const last = history[history.length - 1];
  // The letters of one comment are one change.
  if (!(field === "comment" && last && last.field === field && last.id === item.id)) history.push({id: item.id, field, before});
  answers[item.id] = {...of(item), [field]: value};
  keep();
  show();
}
function undo() {
  const last = history.pop();
  if (!last) return;
  answers[last.id] = {...answers[last.id], [last.field]: last.before};
  place = items.findIndex((item) => item.id === last.id);
  keep();
  read();
}

// ---- the sheet -------------------------------------------------------------------------------------------------
function sheet() {
  const cell = (text) => (/[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const names = questions.map(({name}) => name);
  const rows = items.map((item) => [sample, reader, item.id, ...names.map((name) => of(item)[name] || ""), (of(item).comment || "").trim()]);
  return [["sample", "reader", "item", ...names, "comment"], ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
}
function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheet()], {type: "text/csv;charset=utf-8"}));
  link.download = `sheet-${sample}-${reader.replace(/[^\p{L}\p{N}]+/gu, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
  const open = items.length - count();
  the("status").textContent = open ? `saved, ${open} still open` : "saved";
}

// ---- what is shown ---------------------------------------------------------------------------------------------
function view(name) {
  document.body.dataset.view = name;
  for (const one of ["start", "reading", "done"]) the(one).hidden = one !== name;
}
function read() { view("reading"); draw(); show(); }
function show() {
  const item = items[place], answered = count();
  the("title").textContent = `Vertebra ${place + 1} of ${items.length}`;
  for (const {name} of questions) for (const box of document.getElementsByName(name)) box.checked = of(item)[name] === box.value;
  if (document.activeElement !== the("comment")) the("comment").value = of(item).comment || "";
  the("bar").style.width = `${(100 * answered) / items.length}%`;
  the("progress").setAttribute("aria-valuenow", answered);
  the("status").textContent = `${answered} of ${items.length} answered`;
  the("who").textContent = reader;
  the("undo").disabled = !history.length;
  the("back").disabled = place === 0;
}
function draw() {
  const {rows, half_mm, sagittal, coronal} = items[place], middle = rows / 2, right = SAGITTAL + GAP;
  the("view").setAttribute("viewBox", `0 0 ${right + CORONAL} ${rows}`);
  for (const [id, x, width, picture] of [["sagittal", 0, SAGITTAL, sagittal], ["coronal", right, CORONAL, coronal]]) {
    const values = {x, y: 0, width, height: rows, href: picture};
    for (const [name, value] of Object.entries(values)) the(id).setAttribute(name, value);
  }
  the("marks").replaceChildren();
  const add = (tag, values, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
    made.textContent = text;
    the("marks").append(made);
  };
  // Wedges at the outer edges, on the endplates: nothing covers the bone.
  for (const [x, inward] of [[0, 4], [right + CORONAL, -4]])
    for (const y of [middle - half_mm, middle + half_mm])
      add("path", {class: "mark", d: `M${x} ${y - 1.3}L${x + inward} ${y}L${x} ${y + 1.3}Z`});
  for (const y of [middle - half_mm, middle + half_mm])
    add("path", {class: "mark", d: `M${SAGITTAL + 1} ${y - 0.25}h${GAP - 2}v.5h${2 - GAP}Z`});
  for (const [x, letter] of [[3, "A"], [SAGITTAL - 6, "P"], [right + 3, "R"], [right + CORONAL - 6, "L"]])
    add("text", {x, y: 6, "font-size": 4.6}, letter);
  add("path", {class: "scale", d: `M3 ${rows - 3}h20m-20 -1v2m20 -2v2`, "stroke-width": 0.5});
  add("text", {x: 25, y: rows - 1.6, "font-size": 3.6}, "20 mm");
  shade();
}
function shade() {
  const filter = `brightness(${the("brightness").value}%) contrast(${the("contrast").value}%)`;
  for (const id of ["sagittal", "coronal"]) the(id).style.filter = filter;
}
function go(to) {
  the("comment").blur();
  place = Math.min(Math.max(to, 0), items.length - 1);
  keep();
  read();
  the("title").focus({preventScroll: true});
  window.scrollTo(0, 0);
}
function nextOpen() {
  const order = [...items.keys()].map((n) => (place + 1 + n) % items.length);
  const open = order.find((n) => !complete(items[n]));
  if (open === undefined) { told = true; view("done"); } else go(open);
}
function next() {
  if (place + 1 === items.length || (!told && count() === items.length)) nextOpen(); else go(place + 1);
}

// ---- what the reader does --------------------------------------------------------------------------------------
function begin(name) {
  reader = name;
  ({answers = {}, history = [], place = 0} = kept(reader) || {});
  if (!shelf()) warn();
  read();
}
the("begin").addEventListener("submit", (event) => { event.preventDefault(); if (the("reader").value.trim()) begin(the("reader").value.trim()); });
the("form").addEventListener("submit", (event) => event.preventDefault());
the("form").addEventListener("change", ({target}) => { if (target.type === "radio") put(target.name, target.value); });
the("comment").addEventListener("input", ({target}) => put("comment", target.value));
for (const id of ["brightness", "contrast"]) the(id).addEventListener("input", shade);
the("plain").addEventListener("click", () => { the("brightness").value = the("contrast").value = 100; shade(); });
for (const [id, act] of [["undo", undo], ["save", save], ["save-last", save], ["open", nextOpen], ["next", next]]) the(id).addEventListener("click", act);
the("back").addEventListener("click", () => go(place - 1));
the("again").addEventListener("click", () => go(0));
document.addEventListener("keydown", (event) => {
  const {key, target} = event;
  if (the("reading").hidden || event.metaKey || event.altKey) return;
  if (target === the("comment")) { if (key === "Escape") the("title").focus(); return; }
  if (event.ctrlKey && key !== "z") return;
  if (key === "Enter" && target.tagName === "BUTTON") return;
  const moves = {Enter: next, ArrowRight: next, ArrowLeft: () => go(place - 1), u: undo, z: event.ctrlKey ? undo : null, s: save, o: nextOpen, "/": () => the("comment").focus()};
  const name = key.length === 1 ? key.toLowerCase() : key;
  const found = questions.flatMap((question) => question.answers.map((answer) => [question.name, answer])).find(([, answer]) => answer.key.toLowerCase() === name);
  const act = found ? () => put(found[0], found[1].word) : moves[name];
  if (!act || target.type === "range") return;
  event.preventDefault();
  act();
});
window.addEventListener("beforeunload", (event) => { if (unsaved && !shelf()) event.preventDefault(); });
for (const name of readers()) {
  const button = document.createElement("button"), done = items.filter((item) => questions.every((q) => ((kept(name) || {}).answers || {})[item.id]?.[q.name])).length;
  button.type = "button";
  button.textContent = `Go on as ${name} (${done} of ${items.length})`;
  button.addEventListener("click", () => begin(name));
  the("earlier").append(button);
}
if (!shelf()) warn();
