// The page of `vs-vsr serve`. All that is shown comes from the server; text is only ever set as text.

const PIECE = 8 * 2 ** 20;
const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** An element with its properties; `class`, `aria-…` and `for` are written as in HTML. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

/** Set a property only where it changes, so that nothing is read out or drawn again for nothing. */
function set(element, key, value) {
  if (element[key] !== value) element[key] = value;
}

const text = (element, value) => set(element, "textContent", value);
const show = (element, shown) => set(element, "hidden", !shown);

/* ------------------------------------------------------------------ words */

/** Bytes as people say them, as the command does. */
function bytes(count) {
  for (const [unit, power] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (count >= power) return `${(count / power).toFixed(count < 100 * power ? 1 : 0)} ${unit}`;
  }
  return `${Math.round(count)} B`;
}

function duration(seconds) {
  if (seconds < 55) return "less than a minute";
  const many = (count, unit) => `${count} ${unit}${count === 1 ? "" : "s"}`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `about ${many(minutes, "minute")}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) {
    const rest = minutes % 60;
    return `about ${many(hours, "hour")}${rest ? ` ${many(rest, "minute")}` : ""}`;
  }
  const [days, rest] = [Math.floor(hours / 24), hours % 24];
  return `about ${many(days, "day")}${rest ? ` ${many(rest, "hour")}` : ""}`;
}

/** Seconds into a film, as players show them. */
function clock(time) {
  const seconds = Number(time);
  const [whole, minutes] = [Math.floor(seconds), Math.floor(seconds / 60)];
  const two = (count) => String(count).padStart(2, "0");
  const tail = seconds - whole < 0.005 ? "" : (seconds - whole).toFixed(2).slice(1);
  const start = minutes < 60 ? minutes : `${Math.floor(minutes / 60)}:${two(minutes % 60)}`;
  return `${start}:${two(whole % 60)}${tail}`;
}

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);
/** A name that is fit to be read out, or to stand in a sentence. */
const short = (name) => (name.length > 80 ? `${name.slice(0, 50)}…${name.slice(-25)}` : name);

const STATES = {
  new: "Not started", waiting: "Waiting", running: "Running", pausing: "Pausing", paused: "Paused",
  done: "Done", failed: "Failed", cancelled: "Cancelled",
};
const ORDER = ["running", "pausing", "paused", "waiting", "new", "failed", "cancelled", "done"];
const editable = (job) => ["new", "failed", "cancelled"].includes(job.state);

function spoken(words) {
  // The same words twice are read out twice only if the element was empty between them.
  $("spoken").textContent = "";
  setTimeout(() => { $("spoken").textContent = words; }, 50);
}

/* ----------------------------------------------------------------- server */

/** What the server refuses, in its own sentence. */
class Problem extends Error {
  constructor(status, body) {
    super(body.problem ?? `The server answered with ${status}.`);
    this.status = status;
    this.body = body;
  }
}

async function call(method, path, given, headers = {}) {
  const raw = given instanceof ArrayBuffer;
  const kind = raw ? "application/octet-stream" : "application/json";
  const answer = await fetch(path, {
    method,
    headers: given === undefined ? headers : { "Content-Type": kind, ...headers },
    body: raw || given === undefined ? given : JSON.stringify(given),
  });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, body);
  return body;
}

function complain(error) {
  const words = error instanceof Problem ? error.message
    : "The server does not answer. Look whether vs-vsr serve still runs, then try again.";
  const close = make("button", { type: "button", textContent: "Close", onclick: quiet });
  $("problem").replaceChildren(make("span", { textContent: words }), close);
}

function quiet() {
  $("problem").replaceChildren();
}

/** Do what a button asks for; what is refused is said at the top. */
async function attempt(action) {
  quiet();
  try {
    return await action();
  } catch (error) {
    complain(error);
    return undefined;
  }
}

/* ------------------------------------------------------------------- jobs */

const jobs = new Map();
const rows = new Map();
let footage = [];
let encoders = [];
let pictures = [];
let offered = null;
let selected = null;
let events = null;

/** Hear of changes while the page is seen: a browser has six connections for all tabs of a server. */
function listen() {
  events?.close();
  events = null;
  if (document.hidden) return;
  const heard = new EventSource("/api/events");
  events = heard;
  heard.addEventListener("begin", (event) => {
    text($("connection"), "");
    // What was removed while this page heard nothing.
    const { ids } = JSON.parse(event.data);
    for (const id of jobs.keys()) if (!ids.includes(id)) forget(id);
    drawRows();
    listUploads();
  });
  heard.addEventListener("job", (event) => learn(JSON.parse(event.data)));
  heard.addEventListener("gone", (event) => forget(JSON.parse(event.data).id));
  heard.onerror = async () => {
    heard.close();
    const why = await call("GET", "/api/jobs").then(() => "", (error) => error);
    if (events !== heard) return;
    text($("connection"), why instanceof Problem ? why.message
      : why ? "The server does not answer. This page goes on by itself when it is back." : "");
    await sleep(1500);
    if (events === heard) listen();
  };
}

function learn(job) {
  const before = jobs.get(job.id);
  jobs.set(job.id, job);
  if (before) announce(before, job);
  drawRows();
  if (job.id === selected) drawDetail();
  else if (location.hash === `#${job.id}` && selected === null) select(job.id);
}

function forget(id) {
  jobs.delete(id);
  rows.get(id)?.item.remove();
  rows.delete(id);
  drawRows();
  if (id === selected) select(null);
}

/** Tell what has changed to those who do not see it: states, and each quarter of the work. */
function announce(before, job) {
  const name = short(job.name);
  if (before.state !== job.state) spoken(`${name}: ${STATES[job.state]}. ${job.problem ?? ""}`);
  else if (before.previewing && !job.previewing && !job.problem) spoken("The frames are ready.");
  else if (before.forecasting && !job.forecasting && job.forecast) spoken(foretold(job.forecast));
  else if (job.state === "running" && job.progress?.total) {
    const quarter = (share) => Math.floor(4 * share);
    if (quarter(job.progress.share) > quarter(before.progress?.share ?? 0)) {
      spoken(`${name}: ${Math.round(100 * job.progress.share)} %`);
    }
  }
}

/** One line for how far a job is. */
function far(job) {
  if (["failed", "cancelled"].includes(job.state)) return job.problem ?? "";
  if (job.state === "done") return job.result ? bytes(job.result.bytes) : "";
  if (job.state === "waiting") return "Starts when the ones before it are done.";
  const progress = job.progress;
  if (!progress) return "";
  const parts = progress.share > 0 ? [`${Math.round(100 * progress.share)} %`] : [];
  if (job.state === "running" && progress.seconds_left != null) parts.push(`${duration(progress.seconds_left)} left`);
  else if (job.state !== "paused" && progress.phase) parts.unshift(sentence(progress.phase));
  if (job.state === "pausing") parts.push("finishing the part in hand");
  return parts.join(" · ");
}

function foretold(forecast) {
  return `${sentence(duration(forecast.seconds))} for ${forecast.pictures.toLocaleString("en")} pictures. ` +
    `The file will be ${forecast.width} × ${forecast.height} and about ${bytes(forecast.bytes)}.`;
}

/** The buttons of a job: [what it does, words, look]. */
function verbs(job) {
  const busy = [...jobs.values()].some((other) => ["running", "pausing", "waiting"].includes(other.state));
  switch (job.state) {
    case "new": return [["start", busy ? "Add to the queue" : "Start", "main"], ["remove", "Remove", ""]];
    case "waiting": return [["cancel", "Cancel", ""]];
    case "running": return [["pause", "Pause", ""], ["cancel", "Cancel", ""]];
    case "pausing": return [["pause", "Pause at once", ""], ["cancel", "Cancel", ""]];
    case "paused": return [["resume", "Resume", "main"], ["cancel", "Cancel", ""]];
    case "done": return [...(job.result ? [["download", "Download", "main"]] : []), ["remove", "Remove", ""]];
    case "failed": return [["start", "Start again", "main"], ["over", "Start over", ""], ["remove", "Remove", ""]];
    default: return [["start", "Start again", "main"], ["remove", "Remove", ""]];
  }
}

/** Make `box` hold the buttons of a job. Those that stay are left where they are, with the focus. */
function drawVerbs(box, job) {
  const wanted = verbs(job);
  const first = box === $("actions");
  const old = new Map([...box.children].map((button) => [button.dataset.verb, button]));
  const buttons = wanted.map(([verb, words, look]) => {
    const button = old.get(verb) ?? make("button", { type: "button" });
    button.dataset.verb = verb;
    // Another video may be shown where one was.
    button.onclick = () => act(job.id, verb);
    // Of a video that is not started, the large one is below its choices.
    set(button, "className", first || verb !== "start" ? look : "");
    text(button, words);
    button.setAttribute("aria-label", `${words}: ${short(job.name)}`);
    return button;
  });
  if (buttons.length === box.children.length && buttons.every((button, n) => box.children[n] === button)) return;
  const focused = document.activeElement;
  const had = box.contains(focused);
  box.replaceChildren(...buttons);
  if (had) (buttons.includes(focused) ? focused : buttons[0]).focus();
}

async function act(id, verb) {
  const job = jobs.get(id);
  const name = short(job.name);
  if (verb === "download") {
    make("a", { href: job.result.url, download: job.result.name }).click();
  } else if (verb === "remove") {
    const copy = job.result ? " The upscaled file goes with it: download it first if you want it." : "";
    if (await sure(`Remove ${name}?`, `It leaves the list.${copy}${job.source === "file" ? " The source stays where it is." : ""}`, "Remove")) {
      await attempt(() => call("DELETE", `/api/jobs/${id}`));
    }
  } else if (verb === "over") {
    const lost = "What is made so far is thrown away. Then choose what you like, and start it.";
    if (await sure(`Start ${name} over?`, lost, "Start over")) await attempt(() => call("POST", `/api/jobs/${id}/cancel`));
  } else if (verb === "cancel") {
    const lost = job.state === "waiting" ? "It leaves the queue." : "What is made so far is thrown away. To go on later, pause it instead.";
    if (await sure(`Cancel ${name}?`, lost, "Cancel it")) await attempt(() => call("POST", `/api/jobs/${id}/cancel`));
  } else {
    await attempt(async () => {
      if (verb === "start") await settle(job);
      await call("POST", `/api/jobs/${id}/${verb}`);
    });
  }
}

/** Ask before something is lost. */
function sure(title, words, yes) {
  text($("sure-title"), title);
  text($("sure-text"), words);
  text($("sure-yes"), yes);
  const dialog = $("sure");
  dialog.returnValue = "";
  dialog.showModal();
  dialog.querySelector("[value=no]").focus();
  return new Promise((answer) => {
    // The event of a question before this one may still be on its way.
    dialog.onclose = () => { if (!dialog.open) answer(dialog.returnValue === "yes"); };
  });
}

/* ------------------------------------------------------------ rows of jobs */

function row(job) {
  const item = make("li");
  const name = make("button", { type: "button", className: "name", onclick: () => select(job.id, true) });
  const badge = make("span");
  const bar = make("progress", { max: 1 });
  const line = make("p", { className: "line" });
  const buttons = make("div", { className: "buttons" });
  item.append(make("div", { className: "title" }, name, badge), bar, line, buttons);
  const made = { item, name, badge, bar, line, buttons };
  rows.set(job.id, made);
  return made;
}

function drawRow(job) {
  const { item, name, badge, bar, line, buttons } = rows.get(job.id) ?? row(job);
  text(name, short(job.name));
  set(name, "title", job.name);
  if (job.id === selected) name.setAttribute("aria-current", "true");
  else name.removeAttribute("aria-current");
  item.classList.toggle("current", job.id === selected);
  text(badge, STATES[job.state]);
  set(badge, "className", `badge ${job.state}`);
  show(bar, ["running", "pausing"].includes(job.state) || (job.state === "paused" && job.progress));
  drawBar(bar, job.progress);
  bar.setAttribute("aria-label", `Progress of ${short(job.name)}`);
  text(line, far(job));
  line.classList.toggle("bad", job.state === "failed");
  drawVerbs(buttons, job);
  return item;
}

function drawBar(bar, progress) {
  if (progress?.share > 0) set(bar, "value", progress.share);
  else bar.removeAttribute("value");
}

function drawRows() {
  const sorted = [...jobs.values()].sort((a, b) =>
    ORDER.indexOf(a.state) - ORDER.indexOf(b.state) ||
    (ORDER.indexOf(a.state) > 4 ? b.created - a.created : a.created - b.created));
  const items = sorted.map(drawRow);
  const list = $("queue");
  // An element that moves loses the focus.
  const focused = document.activeElement;
  if (items.some((item, n) => list.children[n] !== item)) {
    list.append(...items);
    if (list.contains(focused)) focused.focus();
  }
  show($("empty"), !items.length);
  const running = sorted.find((job) => job.state === "running" && job.progress);
  set(document, "title", running ? `${Math.round(100 * running.progress.share)} % – vs-vsr` : "vs-vsr");
}

/* -------------------------------------------------------------- one video */

function select(id, focus = false) {
  selected = jobs.has(id) ? id : null;
  history.replaceState(null, "", selected ? `#${selected}` : location.pathname);
  show($("detail"), selected);
  show($("welcome"), !selected);
  drawRows();
  if (!selected) return;
  drawSetup();
  drawDetail();
  if (focus) {
    $("name").focus({ preventScroll: true });
    // On a phone it is below the list.
    if ($("detail").getBoundingClientRect().top > innerHeight / 2) $("detail").scrollIntoView();
  }
}

const current = () => jobs.get(selected);
const kind = (job) => footage.find((row) => row.name === job.footage) ??
  footage.find((row) => row.choices.some(({ choice }) => choice === job.choice)) ?? footage[0];
const chosen = (job) => job.choice ?? kind(job)?.choices[0].choice;
const words = (choice) => choice.replace("/", " ");

/** "clean footage, x4; to watch" as a title and what follows. */
function titled(what) {
  const [, title, size, more] = what.match(/^(.*?)(?:, (x\d|same size))?(?:; (.*))?$/);
  const rest = [size?.replace(/^x/, "").replace(/^\d$/, "$& times the size"), more];
  return [sentence(title), rest.filter(Boolean).join(" · ")];
}

function drawFootage() {
  $("footage").replaceChildren(...footage.map((row) => {
    const [title, rest] = titled(row.what);
    const radio = make("input", { type: "radio", name: "footage", value: row.name });
    radio.onchange = () => change({ footage: row.name, choice: row.choices[0].choice });
    return make("label", {}, radio, make("span", {}, make("b", { textContent: title }), make("small", { textContent: rest })));
  }));
  const seen = new Map();
  for (const row of footage) for (const one of row.choices) if (!seen.has(one.choice)) seen.set(one.choice, { ...one, row });
  $("networks").replaceChildren(...[...seen.values()].map(({ choice, here, non_commercial, row }) => {
    const about = [titled(row.what)[0], here ? "" : "to be downloaded", non_commercial ? "not for commercial use" : ""];
    return make("label", {}, make("input", { type: "checkbox", name: "compared", value: choice }),
      make("span", {}, make("b", { textContent: words(choice) }), make("small", { textContent: about.filter(Boolean).join(" · ") })));
  }));
  $("encoder").replaceChildren(...encoders.map(({ name }) => make("option", { value: name, textContent: name })));
  $("pictures").replaceChildren(...pictures.map(({ name, what }) => make("option", { value: name, textContent: sentence(what) })));
}

/** Fill the form with what the job says; what somebody types is left alone. */
function drawSetup() {
  const job = current();
  if (!job || !footage.length) return;
  const row = kind(job);
  for (const radio of $("footage").querySelectorAll("input")) radio.checked = radio.value === row.name;
  text($("why"), `${words(chosen(job))}: ${row.why}.`);
  const choice = row.choices.find((one) => one.choice === chosen(job)) ?? row.choices[0];
  show($("licence"), choice.non_commercial);
  show($("download"), !choice.here);
  show($("network-field"), row.choices.length > 1);
  $("network").replaceChildren(...row.choices.map((one) => make("option", {
    value: one.choice, textContent: words(one.choice), selected: one.choice === chosen(job),
  })));
  show($("sigma-field"), row.needs.includes("sigma"));
  if (document.activeElement !== $("sigma")) $("sigma").value = job.sigma ?? "";
  if (document.activeElement !== $("size")) $("size").value = job.size ?? "";
  $("encoder").value = job.encoder;
  $("pictures").value = job.pictures;
  const files = encoders.find(({ name }) => name === job.encoder)?.containers ?? [job.container];
  $("container").replaceChildren(...files.map((name) => make("option", {
    value: name, textContent: `.${name}`, selected: name === job.container,
  })));
}

async function change(changes) {
  const id = selected;
  const job = await attempt(() => call("PATCH", `/api/jobs/${id}`, changes));
  if (job) learn(job);
  // What was refused is taken back.
  if (id === selected) drawSetup();
  return job;
}

/** Tell the server of a choice that the page shows and nobody has touched. */
async function settle(job) {
  await offered;
  if (!job.choice) learn(await call("PATCH", `/api/jobs/${job.id}`, { footage: kind(job).name, choice: chosen(job) }));
}

function drawDetail() {
  const job = current();
  const open = editable(job);
  text($("name"), short(job.name));
  set($("name"), "title", job.name);
  text($("state"), [STATES[job.state], bytes(job.bytes), job.source === "file" ? "on this machine" : "uploaded"].join(" · "));
  const working = ["running", "pausing"].includes(job.state);
  show($("far"), working || job.state === "paused" || job.state === "waiting");
  show($("share"), working);
  drawBar($("share"), job.progress);
  text($("far-text"), far(job));
  text($("failure"), job.problem ?? "");
  const notes = job.notes ?? [];
  if ([...$("notes").children].map((item) => item.textContent).join() !== notes.join()) {
    $("notes").replaceChildren(...notes.map((note) => make("li", { textContent: note })));
  }
  show($("setup"), open);
  show($("ask"), open);
  text($("look-title"), open ? "Look at frames first" : "Frames");
  text($("summary"), open || !job.choice ? "" : summary(job));
  // An open list of choices would close.
  if (open && document.activeElement?.tagName !== "SELECT") drawSetup();

  show($("looking"), job.previewing);
  if (job.previewing) {
    drawBar($("looking-share"), job.progress);
    text($("looking-text"), `${sentence(job.progress?.phase ?? "starting")} …`);
  }
  show($("estimating"), job.forecasting);
  if (job.forecasting) {
    drawBar($("estimating-share"), job.progress);
    text($("estimating-text"), `${sentence(job.progress?.phase ?? "starting")} …`);
  }
  // Of others, cancelling would throw their parts away.
  for (const id of ["looking-stop", "estimating-stop"]) show($(id), job.state === "new");
  const waiting = job.previewing || job.forecasting;
  for (const id of ["three", "several", "ask-forecast"]) $(id).setAttribute("aria-disabled", String(Boolean(waiting)));
  text($("time-hint"), `Seconds, or 0:01:30${job.seconds ? `. It lasts ${clock(job.seconds)}` : ""}`);
  drawViewer(job);
  show($("look"), open || job.previews.length);
  text($("forecast"), job.forecast && open ? foretold(job.forecast) : "");
  show($("ask-forecast").parentElement, open && !job.forecast);
  text($("estimate-title"), open ? "Time and size" : "Notes");
  show($("estimate"), open || notes.length);
  drawVerbs($("actions"), job);
}

function summary(job) {
  const parts = [words(job.choice)];
  if (job.sigma != null) parts.push(`sigma ${job.sigma}`);
  if (job.size) parts.push(job.size);
  if (job.pictures !== "auto") parts.push(pictures.find(({ name }) => name === job.pictures)?.what ?? job.pictures);
  parts.push(`${job.encoder} in .${job.container}`);
  const progress = job.progress;
  if (progress?.total) parts.push(`${progress.pictures.toLocaleString("en")} of ${progress.total.toLocaleString("en")} pictures`);
  if (progress?.expected_bytes) parts.push(`about ${bytes(progress.expected_bytes)}`);
  return parts.join(" · ");
}

/** Ask for previews or a forecast, unless one is being made. */
async function ask(what, given) {
  const job = current();
  if (job.previewing || job.forecasting) return;
  // Without networks they are of the one that is chosen.
  await attempt(async () => {
    await settle(job);
    await call("POST", `/api/jobs/${job.id}/${what}`, given);
  });
}

/* ------------------------------------------------------- before and after */

const view = { job: null, time: null, choice: null, known: "", width: 0, height: 0 };

function drawViewer(job) {
  show($("viewer"), job.previews.length);
  if (!job.previews.length) {
    view.known = "";
    return;
  }
  const known = JSON.stringify([job.id, job.previews]);
  if (known === view.known) return;
  const before = view.job === job.id ? new Set(JSON.parse(view.known || "[0,[]]")[1].map(({ url }) => url)) : new Set();
  Object.assign(view, { known, job: job.id });
  // What is new is shown.
  const fresh = job.previews.filter(({ url }) => !before.has(url));
  const times = [...new Set(job.previews.map(({ time }) => time))].sort((a, b) => Number(a) - Number(b));
  if (fresh.length || !times.includes(view.time)) {
    view.time = (fresh[0] ?? job.previews[0]).time;
    view.choice = (fresh[0] ?? job.previews[0]).choice;
    $("beside").checked = job.previews.filter(({ time }) => time === view.time).length > 1;
  }
  $("times").replaceChildren(...times.map((time) => {
    const radio = make("input", { type: "radio", name: "time", checked: time === view.time });
    radio.onchange = () => { view.time = time; drawFrame(); };
    return make("label", {}, radio, make("span", { textContent: clock(time) }));
  }));
  drawFrame();
}

/** The previews of the frame that is shown. */
const shownPreviews = () => (current()?.previews ?? []).filter(({ time }) => time === view.time);

function drawFrame() {
  const all = shownPreviews();
  const one = all.find(({ choice }) => choice === view.choice) ?? all[0];
  if (!one) return;
  view.choice = one.choice;
  $("shown").replaceChildren(...all.map(({ choice }) => make("option", {
    value: choice, textContent: words(choice), selected: choice === one.choice,
  })));
  const beside = all.length > 1 && $("beside").checked;
  show($("beside-field"), all.length > 1);
  show($("shown-field"), all.length > 1 && !beside);
  show($("slider"), !beside);
  show($("panels"), beside);
  // Half of each picture is the frame.
  view.width = Math.max(...all.map(({ width }) => width / 2));
  view.height = view.width * (one.height / (one.width / 2));
  if (beside) drawPanels(all);
  else {
    for (const id of ["before", "after"]) if ($(id).getAttribute("src") !== one.url) $(id).src = one.url;
    $("after").alt = `After, by ${words(one.choice)}, at ${clock(one.time)}`;
    $("before").alt = `Before, at ${clock(one.time)}`;
  }
  drawZoom();
}

function drawPanels(all) {
  const open = editable(current());
  const panel = (preview, after) => {
    const name = after ? words(preview.choice) : "Before";
    const picture = make("img", { src: preview.url, alt: `${name}, at ${clock(preview.time)}`, className: after ? "after" : "", draggable: false });
    const window = make("div", { className: "window", role: "region", "aria-label": name, tabIndex: 0 }, make("div", { className: "frame" }, picture));
    window.onscroll = () => together(window);
    const caption = make("figcaption", {}, make("span", { textContent: name }));
    if (after && open) {
      const row = () => footage.find(({ choices }) => choices.some(({ choice }) => choice === preview.choice));
      caption.append(make("button", {
        type: "button", textContent: "Use this", "aria-label": `Use this: ${name}`,
        onclick: () => change({ footage: row()?.name, choice: preview.choice }).then((job) => job && spoken(`${name} is chosen.`)),
      }));
    }
    return make("figure", {}, window, caption);
  };
  $("panels").replaceChildren(panel(all[0], false), ...all.map((preview) => panel(preview, true)));
}

/** Side by side, all are moved as one. */
function together(moved) {
  for (const other of $("panels").querySelectorAll(".window")) {
    if (other === moved) continue;
    if (Math.abs(other.scrollLeft - moved.scrollLeft) > 1) other.scrollLeft = moved.scrollLeft;
    if (Math.abs(other.scrollTop - moved.scrollTop) > 1) other.scrollTop = moved.scrollTop;
  }
}

function drawZoom() {
  const zoom = Number($("zoom").value);
  $("stage").classList.toggle("fit", !zoom);
  for (const frame of $("viewer").querySelectorAll(".frame")) {
    frame.style.aspectRatio = `${view.width} / ${view.height}`;
    // One pixel of the picture on one of the screen, at 1:1.
    frame.style.width = zoom ? `${(view.width * zoom) / devicePixelRatio}px`
      : `min(100%, ${(75 * view.width) / view.height}vh)`;
    frame.classList.toggle("sharp", zoom > 1);
  }
  drawSplit();
}

/** The divider is where the slider says, in what is seen of the frame. */
function drawSplit() {
  const stage = $("stage");
  const share = Number($("split").value) / 100;
  const x = stage.scrollLeft + share * stage.clientWidth;
  const frame = stage.querySelector(".frame");
  const inside = Math.min(Math.max((x - frame.offsetLeft) / (frame.offsetWidth || 1), 0), 1);
  // The left half of the picture twice as wide is the frame before.
  $("before").style.clipPath = `inset(0 ${100 - 50 * inside}% 0 0)`;
  Object.assign($("divider").style, { left: `${x}px`, height: `${stage.scrollHeight}px` });
  const [left, right] = stage.querySelectorAll(".tag");
  for (const tag of [left, right]) tag.style.top = `${stage.scrollTop + 8}px`;
  left.style.left = `${stage.scrollLeft + 8}px`;
  right.style.left = `${stage.scrollLeft + stage.clientWidth - right.offsetWidth - 8}px`;
  $("split").setAttribute("aria-valuetext", `${$("split").value} % before`);
}

/** By mouse: the divider follows at fit, and the picture is moved when it is larger. */
function drag(event) {
  const stage = $("stage");
  if (event.button || (event.pointerType !== "mouse" && !stage.classList.contains("fit"))) return;
  const start = { x: event.clientX, y: event.clientY, left: stage.scrollLeft, top: stage.scrollTop };
  const move = (at) => {
    if (stage.classList.contains("fit")) {
      $("split").value = (100 * (at.clientX - stage.getBoundingClientRect().left)) / stage.clientWidth;
      drawSplit();
    } else stage.scrollTo(start.left + start.x - at.clientX, start.top + start.y - at.clientY);
  };
  stage.setPointerCapture(event.pointerId);
  stage.onpointermove = move;
  stage.onpointerup = stage.onpointercancel = () => { stage.onpointermove = null; };
  move(event);
}

/* ---------------------------------------------------------------- uploads */

const sending = new Set();

/** Whether a cut off upload is of this file. The server shows names on one line, and shortened. */
function isOf(file, upload) {
  const plain = file.name.replace(/\p{C}/gu, (one) => (/\s/.test(one) ? " " : "")).replace(/\s+/g, " ").trim();
  return file.size === upload.bytes && file.lastModified === upload.modified && plain.slice(0, 100) === upload.name.slice(0, 100);
}

function uploadRow({ name, bytes: count }) {
  const made = {
    item: make("li"),
    bar: make("progress", { max: 1, value: 0, "aria-label": `Upload of ${short(name)}` }),
    line: make("p", { className: "line" }),
    buttons: make("div", { className: "buttons" }),
  };
  const title = make("span", { className: "name", textContent: short(name), title: name });
  made.item.append(make("div", { className: "title" }, title, make("span", { className: "badge", textContent: bytes(count) })), made.bar, made.line, made.buttons);
  $("uploads").append(made.item);
  return made;
}

const button = (words, name, onclick) => make("button", { type: "button", textContent: words, "aria-label": `${words}: ${short(name)}`, onclick });

/** Remove what has come of a file, if the server has not done so itself. */
async function discard(id) {
  await call("DELETE", `/api/uploads/${id}`).catch((error) => {
    if (error.status !== 404) throw error;
  });
}

/** Send a file in pieces; after a break it goes on with what the server has. */
async function send(file) {
  const about = { name: file.name, bytes: file.size, modified: file.lastModified };
  // Chosen twice in this tab, it is sent once.
  if ([...sending].some(({ file: { name, size, lastModified } }) => name === file.name && size === file.size && lastModified === file.lastModified)) return;
  const { item, bar, line, buttons } = uploadRow(about);
  const state = { file, id: null, paused: false, stopped: false, resume: () => {} };
  sending.add(state);
  const hold = (paused) => {
    state.paused = paused;
    text(pause, paused ? "Go on" : "Pause");
    pause.setAttribute("aria-label", `${pause.textContent}: ${short(about.name)}`);
    line.classList.remove("bad");
    if (!paused) state.resume();
  };
  const pause = button("Pause", about.name, () => {
    hold(!state.paused);
    if (state.paused) text(line, `${line.textContent.split(" · ")[0]} · paused`);
  });
  const remove = button("Remove", about.name, async () => {
    state.stopped = true;
    state.resume();
    sending.delete(state);
    item.remove();
    if (state.id) await attempt(() => discard(state.id));
  });
  buttons.append(pause, remove);

  let offset = 0;
  let tries = 0;
  let said = "";
  let elsewhere = false;
  let asked = false;
  let asks = 0;
  const began = { at: 0, offset: 0 };
  const draw = () => {
    set(bar, "value", file.size ? offset / file.size : 1);
    const speed = (offset - began.offset) / (performance.now() - began.at);
    const left = speed > 0 && offset > began.offset ? ` · ${duration((file.size - offset) / speed / 1000)} left` : "";
    text(line, `${bytes(offset)} of ${bytes(file.size)}${left}${said}`);
  };
  while (!state.stopped) {
    try {
      if (!state.id) {
        const found = (await call("GET", "/api/uploads")).find((one) => isOf(file, one));
        ({ id: state.id, offset } = found ?? await call("POST", "/api/uploads", about));
        // A row that has given up on it could only remove it.
        for (const old of $("uploads").querySelectorAll(`[data-upload="${state.id}"]`)) old.remove();
        item.dataset.upload = state.id;
        if (offset) {
          said = ` · went on at ${bytes(offset)}`;
          spoken(`${short(about.name)}: going on at ${bytes(offset)}.`);
        }
      } else ({ offset } = await call("GET", `/api/uploads/${state.id}`));
      Object.assign(began, { at: performance.now(), offset });
      draw();
      while (offset < file.size && !state.stopped) {
        if (state.paused) {
          await new Promise((go) => { state.resume = go; });
          Object.assign(began, { at: performance.now(), offset });
          continue;
        }
        const piece = await file.slice(offset, offset + PIECE).arrayBuffer().catch(() => {
          throw new Problem(0, { problem: "The file must be readable, got an error of the browser. Look whether it was moved or changed, then choose it again." });
        });
        ({ offset } = await call("PATCH", `/api/uploads/${state.id}`, piece, { "Upload-Offset": String(offset) }));
        [tries, elsewhere] = [0, false];
        draw();
      }
      if (state.stopped) return;
      text(line, "Looking at it …");
      buttons.replaceChildren();
      asked = true;
      const job = await call("POST", "/api/jobs", { upload: state.id });
      finish(job);
      break;
    } catch (error) {
      if (state.stopped) return;
      if (error instanceof Problem && error.status === 409 && "offset" in error.body) {
        // Another tab sends it, or this one before a break that the server has not noticed yet.
        elsewhere = true;
        text(line, error.message);
        await sleep(1000);
      } else if (error instanceof Problem && error.status === 404 && elsewhere) {
        item.remove();
        break;
      } else if (error instanceof Problem && error.status === 404 && asked && asks < 60) {
        // While a job is made of it, it is neither. A break may have hidden that it is one.
        const job = await call("GET", `/api/jobs/${state.id}`).catch(() => null);
        if (job) {
          finish(job);
          break;
        }
        asks += 1;
        text(line, "Looking at it …");
        await sleep(1000);
      } else if (error instanceof Problem && error.status === 404 && !asked && tries < 3) {
        tries += 1;
        state.id = null;
      } else if (error instanceof Problem) {
        text(line, error.message);
        spoken(error.message);
        if (error.status === 507) {
          // Room can be made, and what has come is kept.
          hold(true);
          line.classList.add("bad");
          if (!buttons.children.length) buttons.append(pause, remove);
          await new Promise((go) => { state.resume = go; });
          continue;
        }
        line.classList.add("bad");
        show(bar, false);
        buttons.replaceChildren(remove);
        break;
      } else {
        tries += 1;
        const words = "Connection lost. It goes on by itself when the server answers.";
        if (line.textContent !== words) spoken(words);
        text(line, words);
        said = " · went on after a break";
        await sleep(Math.min(1000 * tries, 10000));
      }
    }
  }
  sending.delete(state);

  function finish(job) {
    item.remove();
    learn(job);
    // Whoever is at another video stays there.
    if (!selected) select(job.id);
    spoken(`${short(job.name)} is here.`);
  }
}

/** Uploads that were cut off, and of which this page has no file. */
async function listUploads() {
  const all = await call("GET", "/api/uploads").catch(() => null);
  if (!all) return;
  for (const stale of $("uploads").querySelectorAll("li[data-cut]")) stale.remove();
  for (const upload of all) {
    if ($("uploads").querySelector(`[data-upload="${upload.id}"]`) || [...sending].some(({ file }) => isOf(file, upload))) continue;
    const { item, bar, line, buttons } = uploadRow(upload);
    item.dataset.cut = item.dataset.upload = upload.id;
    set(bar, "value", upload.bytes ? upload.offset / upload.bytes : 0);
    text(line, `${bytes(upload.offset)} of ${bytes(upload.bytes)} are here. Choose the same file again, and it goes on from there.`);
    buttons.append(button("Choose it", upload.name, () => $("file").click()),
      button("Remove", upload.name, async () => {
        await attempt(() => discard(upload.id));
        item.remove();
      }));
  }
}

/* --------------------------------------------------- files of this machine */

async function browse(folder) {
  text($("files-problem"), "");
  let found;
  try {
    found = await call("GET", folder ? `/api/files?folder=${encodeURIComponent(folder)}` : "/api/files");
  } catch (error) {
    text($("files-problem"), error.message);
    return;
  }
  $("folder").value = found.folder;
  const entry = (name, size, onclick) => make("li", {}, make("button", { type: "button", onclick }, make("span", { textContent: name }), make("small", { textContent: size })));
  const items = [];
  if (found.parent !== null) items.push(entry("‹ Up", "", () => browse(found.parent)));
  for (const { name, path } of found.folders) items.push(entry(`${name}/`, "", () => browse(path)));
  for (const { name, path, bytes: count } of found.files) items.push(entry(name, bytes(count), () => take(path)));
  if (found.more) items.push(make("li", { className: "quiet", textContent: "There are more than are shown here. Put the video into a smaller folder." }));
  else if (!found.files.length) items.push(make("li", { className: "quiet", textContent: "No videos in this folder." }));
  const inside = $("entries").contains(document.activeElement);
  $("entries").replaceChildren(...items);
  if (inside) $("entries").querySelector("button")?.focus();
}

async function take(path) {
  try {
    const job = await call("POST", "/api/jobs", { path });
    $("files").close();
    learn(job);
    select(job.id, true);
  } catch (error) {
    text($("files-problem"), error.message);
  }
}

/* ------------------------------------------------------------------ begin */

function wire() {
  const file = $("file");
  $("upload").onclick = () => file.click();
  file.onchange = () => {
    for (const one of file.files) send(one);
    // The same file may be chosen again.
    file.value = "";
  };
  $("browse").onclick = () => { $("files").showModal(); browse($("folder").value); };
  $("go").onsubmit = (event) => { event.preventDefault(); browse($("folder").value); };
  $("files-close").onclick = () => $("files").close();

  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.ondragover = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); };
  document.ondrop = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    for (const one of event.dataTransfer.files) send(one);
  };
  onbeforeunload = (event) => { if (sending.size) event.preventDefault(); };
  document.onvisibilitychange = listen;
  onhashchange = () => select(location.hash.slice(1));

  $("setup").onsubmit = (event) => event.preventDefault();
  $("network").onchange = ({ target }) => change({ choice: target.value });
  $("sigma").onchange = ({ target }) => change({ sigma: target.value === "" ? null : Number(target.value) });
  $("size").onchange = ({ target }) => change({ size: target.value.trim() });
  $("encoder").onchange = ({ target }) => {
    const files = encoders.find(({ name }) => name === target.value).containers;
    change({ encoder: target.value, ...(files.includes(current().container) ? {} : { container: files[0] }) });
  };
  $("container").onchange = ({ target }) => change({ container: target.value });
  $("pictures").onchange = ({ target }) => change({ pictures: target.value });

  $("three").onclick = () => ask("previews", {});
  $("several").onclick = () => {
    const choices = [...$("networks").querySelectorAll(":checked")].map(({ value }) => value);
    const time = $("time").value.trim();
    if (choices.length < 2) {
      complain(new Problem(400, { problem: `Networks must be two or more to compare, got ${choices.length}. Tick another one.` }));
    } else ask("previews", { choices, ...(time ? { times: [time] } : {}) });
  };
  for (const id of ["looking-stop", "estimating-stop"]) {
    $(id).onclick = () => attempt(() => call("POST", `/api/jobs/${selected}/cancel`));
  }
  $("ask-forecast").onclick = () => ask("forecast");

  $("split").oninput = drawSplit;
  $("stage").onscroll = drawSplit;
  $("stage").onpointerdown = drag;
  $("zoom").onchange = drawZoom;
  $("beside").onchange = drawFrame;
  $("shown").onchange = ({ target }) => { view.choice = target.value; drawFrame(); };
  new ResizeObserver(drawSplit).observe($("stage"));
}

/** What one can choose from. The first time it takes a while, as weights that are here are checked. */
async function load() {
  let known;
  // Why it is refused is said where events are.
  while (!(known = await call("GET", "/api/footage").catch(() => null))) await sleep(1500);
  ({ footage, encoders, pictures } = known);
  text($("device"), known.device === "auto" ? "" : `computes on ${known.device}`);
  drawFootage();
  drawSetup();
}

wire();
offered = load();
listen();
// While nobody sees the page, only its title is.
setInterval(async () => {
  const all = document.hidden ? await call("GET", "/api/jobs").catch(() => []) : [];
  if (document.hidden) all.forEach(learn);
}, 10000);
