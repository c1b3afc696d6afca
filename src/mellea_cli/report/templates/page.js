"use strict";
// The list of rows: search, filters, sorting, pages, and links from quotes to rows.
// Feedback only ever becomes text (textContent, createTextNode): nothing here parses it.
(() => {
  const PAGE = 50;
  const CLIP = 600;
  const [ID, TEXT, SUMMARY, STATE, SENTIMENT, URGENCY, THEMES, COMPLAINT, PRAISE, ERROR, DAY, REST, QUOTES, OWN] = Array(14).keys();
  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const facts = read("facts");
  const rows = read("data");
  const dated = facts.date !== null;
  const labelled = facts.themes.length > 0;
  const format = new Intl.NumberFormat("en");
  const known = new Set(["negative", "mixed", "positive", "high", "medium", "low"]);
  const many = (number, word) => `${format.format(number)} ${word}${number === 1 ? "" : "s"}`;
  const controls = {
    search: byId("search"),
    sentiment: byId("filter-sentiment"),
    urgency: byId("filter-urgency"),
    theme: byId("filter-theme"),
    sort: byId("sort"),
  };
  const fields = facts.fields.map((field, place) => ({ ...field, control: byId(`filter-field-${place}`) }));

  let haystacks = null;
  let found = rows.map((_, place) => place);
  let page = 0;
  let marked = -1;
  const open = new Set();

  // Sorting: how each order compares two rows; the place in the file decides between equals.
  const collator = new Intl.Collator("en", { numeric: true });
  const missing = (value) => (value < 0 ? 99 : value);
  const orders = {
    place: { name: "Place in the file", compare: () => 0 },
    id: { name: "Row", column: "id", compare: (a, b) => collator.compare(a[ID], b[ID]) },
    date: { name: "Date", column: "date", compare: (a, b) => (a[DAY] < b[DAY] ? -1 : a[DAY] > b[DAY] ? 1 : 0), last: (row) => !row[DAY] },
    sentiment: { name: "Sentiment", column: "sentiment", compare: (a, b) => missing(a[SENTIMENT]) - missing(b[SENTIMENT]), last: (row) => row[SENTIMENT] < 0 },
    urgency: { name: "Urgency", column: "urgency", compare: (a, b) => missing(a[URGENCY]) - missing(b[URGENCY]), last: (row) => row[URGENCY] < 0 },
  };
  if (!dated) delete orders.date;
  let order = "place";
  let ascending = true;

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function haystack(place) {
    const row = rows[place];
    const themes = row[THEMES].map((one) => facts.themes[one]).join("\n");
    return [row[ID], row[TEXT], row[SUMMARY], row[COMPLAINT], row[PRAISE], row[ERROR], themes, ...row[REST]].join("\n").toLowerCase();
  }

  function words() {
    return controls.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  }

  function select() {
    const wanted = words();
    if (wanted.length && haystacks === null) haystacks = rows.map((_, place) => haystack(place));
    const chosen = (control) => (control.value === "" ? null : control.value);
    const [sentiment, urgency, theme] = [controls.sentiment, controls.urgency, controls.theme].map(chosen);
    const own = fields.map((field) => chosen(field.control));
    found = [];
    for (let place = 0; place < rows.length; place += 1) {
      const row = rows[place];
      if (sentiment !== null && (sentiment.startsWith("state-") ? `state-${row[STATE]}` !== sentiment : row[SENTIMENT] !== Number(sentiment))) continue;
      if (urgency !== null && row[URGENCY] !== Number(urgency)) continue;
      if (theme !== null && (theme === "-1" ? row[THEMES].length > 0 : !row[THEMES].includes(Number(theme)))) continue;
      if (own.some((value, one) => value !== null && (value === "-1" ? row[OWN][one].length > 0 : !row[OWN][one].includes(Number(value))))) continue;
      if (wanted.length && !wanted.every((word) => haystacks[place].includes(word))) continue;
      found.push(place);
    }
    const { compare, last } = orders[order];
    if (order !== "place" || !ascending) {
      const sign = ascending ? 1 : -1;
      found.sort((a, b) => {
        // Rows without a value come last in both directions.
        const ends = last ? last(rows[a]) - last(rows[b]) : 0;
        return ends || sign * compare(rows[a], rows[b]) || (order === "place" ? sign * (a - b) : a - b);
      });
    }
    page = 0;
  }

  // A text with the words that were searched for marked, as nodes.
  function withMarks(parent, text, wanted) {
    if (!wanted.length) {
      parent.textContent = text;
      return;
    }
    const lower = text.toLowerCase();
    if (lower.length !== text.length) {
      parent.textContent = text; // some characters change their length in lower case, so the indexes differ
      return;
    }
    let from = 0;
    while (from < text.length) {
      let at = -1;
      let length = 0;
      for (const word of wanted) {
        const hit = lower.indexOf(word, from);
        if (hit >= 0 && (at < 0 || hit < at || (hit === at && word.length > length))) [at, length] = [hit, word.length];
      }
      if (at < 0) break;
      parent.append(text.slice(from, at), element("mark", "", text.slice(at, at + length)));
      from = at + length;
    }
    parent.append(text.slice(from));
  }

  // An excerpt of a long text: its beginning, or the surroundings of the first hit.
  function excerpt(text, wanted) {
    if (text.length <= CLIP) return text;
    const hits = wanted.map((word) => text.toLowerCase().indexOf(word)).filter((at) => at >= 0);
    const start = hits.length ? Math.min(...hits) : 0;
    return start < CLIP / 2 ? `${text.slice(0, CLIP)}…` : `…${text.slice(start - 120, start + CLIP - 120)}…`;
  }

  function chip(name, kind) {
    return element("span", kind === "theme" ? "chip theme" : `chip tone-${known.has(name) ? name : "rest"}`, name);
  }

  function cell(className, ...content) {
    const made = element("td", className);
    made.setAttribute("role", "cell");
    made.append(...content);
    return made;
  }

  function details(row) {
    const list = element("dl", "all");
    const add = (name, value) => {
      if (value) list.append(element("dt", "", name), element("dd", "", value));
    };
    add("complaint", row[COMPLAINT]);
    add("praise", row[PRAISE]);
    for (const [theme, quote] of Object.entries(row[QUOTES])) add(`quote: ${facts.themes[theme]}`, `“${quote}”`);
    facts.columns.forEach((name, index) => add(name, row[REST][index] || ""));
    return list;
  }

  function wordsCell(place, wanted) {
    const row = rows[place];
    const shown = open.has(place);
    const said = row[TEXT] || (row[STATE] === 1 ? "" : row[SUMMARY]);
    const text = element("div", shown ? "text" : "text clipped");
    text.dir = "auto";
    withMarks(text, shown ? said : excerpt(said, wanted), wanted);
    const content = [text];
    if (!said) text.append(element("span", "quiet", "(no text)"));
    if (row[SUMMARY] && row[TEXT]) {
      const summary = element("div", "summary");
      summary.dir = "auto";
      withMarks(summary, row[SUMMARY], wanted);
      content.push(summary);
    }
    if (row[ERROR]) content.push(element("div", "failure", row[ERROR]));
    const more = element("button", "more", shown ? "Less" : "More");
    more.type = "button";
    more.setAttribute("aria-expanded", String(shown));
    more.setAttribute("aria-label", `${shown ? "Less" : "More"} of row ${row[ID]}`);
    more.addEventListener("click", () => {
      if (shown) open.delete(place);
      else open.add(place);
      const old = byId(`row-${place + 1}`);
      const fresh = line(place, words());
      old.replaceWith(fresh);
      fresh.querySelector("button.more").focus({ preventScroll: true });
    });
    if (shown) content.push(details(row));
    content.push(more);
    return cell("words", ...content);
  }

  function line(place, wanted) {
    const row = rows[place];
    const made = element("tr", place === marked ? "found" : "");
    made.id = `row-${place + 1}`;
    made.tabIndex = -1;
    made.setAttribute("role", "row");
    const ident = cell("id");
    withMarks(ident, row[ID], wanted);
    made.append(ident, wordsCell(place, wanted));
    if (dated) made.append(cell("date", row[DAY]));
    if (facts.judged) made.append(cell("sentiment", ...(row[SENTIMENT] >= 0 ? [chip(facts.sentiments[row[SENTIMENT]])] : row[STATE] === 2 ? [chip("failed")] : [])));
    if (facts.judged) made.append(cell("urgency", ...(row[URGENCY] >= 0 ? [chip(facts.urgencies[row[URGENCY]])] : [])));
    if (labelled) made.append(cell("themes-cell", ...row[THEMES].map((one) => chip(facts.themes[one], "theme"))));
    return made;
  }

  function draw() {
    const wanted = words();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    const first = page * PAGE;
    const body = byId("body");
    const lines = found.slice(first, first + PAGE).map((place) => line(place, wanted));
    if (!lines.length) {
      const empty = element("tr");
      empty.setAttribute("role", "row");
      const only = cell("nothing", "No row matches. Clear the filters to see all rows.");
      only.colSpan = byId("heads").children.length;
      empty.append(only);
      lines.push(empty);
    }
    body.replaceChildren(...lines);
    byId("pages").textContent = `of ${format.format(pages)}`;
    byId("page").value = String(page + 1);
    byId("previous").disabled = page === 0;
    byId("next").disabled = page >= pages - 1;
    for (const head of byId("heads").children) {
      if (head.dataset.order) head.setAttribute("aria-sort", head.dataset.order === order ? (ascending ? "ascending" : "descending") : "none");
    }
    controls.sort.value = order;
  }

  function say(before = "") {
    const all = many(rows.length, "row");
    const first = page * PAGE;
    const range = found.length > PAGE ? `, ${format.format(first + 1)} to ${format.format(Math.min(first + PAGE, found.length))} shown` : "";
    const count = found.length === rows.length ? `${all}${range}` : `${format.format(found.length)} of ${all} match${found.length === 1 ? "es" : ""}${range}`;
    byId("hits").textContent = before + count;
  }

  function update(before) {
    marked = -1;
    select();
    draw();
    say(before);
  }

  function turn(to) {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(Math.max(0, to), pages - 1);
    draw();
    say();
    byId("hits").scrollIntoView({ block: "start" });
  }

  function clear() {
    for (const name of ["search", "sentiment", "urgency", "theme"]) controls[name].value = "";
    for (const field of fields) field.control.value = "";
  }

  // Shows a row wherever it is: on another page, or filtered out.
  function reveal(place) {
    let before = "";
    if (!found.includes(place)) {
      clear();
      select();
      before = "Filters cleared to show the row. ";
    }
    marked = place;
    page = Math.floor(found.indexOf(place) / PAGE);
    draw();
    say(before);
    const target = byId(`row-${place + 1}`);
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "center" });
  }

  function follow() {
    const match = /^#row-(\d+)$/.exec(location.hash);
    if (match && Number(match[1]) >= 1 && Number(match[1]) <= rows.length) reveal(Number(match[1]) - 1);
  }

  function fill(control, names, counts) {
    names.forEach((name, index) => control.append(new Option(`${name} (${format.format(counts[index])})`, String(index))));
  }

  function tally(field, size) {
    const counts = Array(size).fill(0);
    for (const row of rows) for (const one of [row[field]].flat()) if (one >= 0) counts[one] += 1;
    return counts;
  }

  function build() {
    fill(controls.sentiment, facts.sentiments, tally(SENTIMENT, facts.sentiments.length));
    [[1, "without text"], [2, "failed"], [3, "non-answer"]].forEach(([state, name]) => {
      const count = rows.filter((row) => row[STATE] === state).length;
      if (count) controls.sentiment.append(new Option(`${name} (${format.format(count)})`, `state-${state}`));
    });
    fill(controls.urgency, facts.urgencies, tally(URGENCY, facts.urgencies.length));
    if (labelled) {
      fill(controls.theme, facts.themes, tally(THEMES, facts.themes.length));
      const unlabelled = rows.filter((row) => !row[THEMES].length).length;
      if (unlabelled) controls.theme.append(new Option(`not labelled (${format.format(unlabelled)})`, "-1"));
    } else {
      byId("theme-label").hidden = true;
    }
    if (!facts.judged) for (const name of ["sentiment", "urgency"]) {
      byId(`${name}-label`).hidden = true;
      delete orders[name];
    }
    fields.forEach((field, one) => {
      const counts = Array(field.values.length).fill(0);
      for (const row of rows) for (const place of row[OWN][one]) counts[place] += 1;
      fill(field.control, field.values, counts);
      const without = rows.filter((row) => !row[OWN][one].length).length;
      if (without) field.control.append(new Option(`no value (${format.format(without)})`, "-1"));
    });
    for (const [key, { name }] of Object.entries(orders)) controls.sort.append(new Option(name, key));
    const heads = [["Row", "id"], ["Feedback and summary", "", "words"], ...(dated ? [["Date", "date"]] : []), ...(facts.judged ? [["Sentiment", "sentiment"], ["Urgency", "urgency"]] : []), ...(labelled ? [["Themes", "", "themes-cell"]] : [])];
    for (const [name, key, kind] of heads) {
      const head = element("th", kind || key, key ? undefined : name);
      head.scope = "col";
      head.setAttribute("role", "columnheader");
      if (key) {
        head.dataset.order = key;
        head.setAttribute("aria-sort", "none");
        const button = element("button", "", name);
        button.type = "button";
        button.addEventListener("click", () => sortBy(key, order === key ? !ascending : true));
        head.append(button);
      }
      byId("heads").append(head);
    }
  }

  function sortBy(key, up) {
    order = key;
    ascending = up;
    update(`Sorted by ${orders[key].name.toLowerCase()}, ${up ? "ascending" : "descending"}. `);
  }

  function filterBy(kind, name) {
    const own = fields.find((field) => `field ${field.name}` === kind);
    const names = own ? own.values : { sentiment: facts.sentiments, urgency: facts.urgencies, theme: facts.themes }[kind];
    const place = names.indexOf(name);
    if (place < 0) return;
    clear();
    (own ? own.control : controls[kind]).value = String(place);
    update();
    byId("rows").focus({ preventScroll: true });
    byId("rows").scrollIntoView({ block: "start" });
  }

  function listen() {
    let timer = 0;
    controls.search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => update(), 120);
    });
    for (const name of ["sentiment", "urgency", "theme"]) controls[name].addEventListener("change", () => update());
    for (const field of fields) field.control.addEventListener("change", () => update());
    controls.sort.addEventListener("change", () => sortBy(controls.sort.value, true));
    byId("reset").addEventListener("click", () => {
      clear();
      [order, ascending] = ["place", true];
      update();
      controls.search.focus();
    });
    byId("previous").addEventListener("click", () => turn(page - 1));
    byId("next").addEventListener("click", () => turn(page + 1));
    byId("page").addEventListener("change", (event) => turn((Number.parseInt(event.target.value, 10) || 1) - 1));
    document.addEventListener("click", (event) => {
      const filter = event.target.closest("button[data-filter]");
      if (filter) filterBy(filter.dataset.filter, filter.dataset.value);
      // A second click on the same link changes no hash.
      const link = event.target.closest("a.row-link");
      if (link && link.hash === location.hash) {
        event.preventDefault();
        follow();
      }
    });
    addEventListener("hashchange", follow);
    // A theme cannot be opened on paper.
    // Rows are printed on request only: a thousand of them fill dozens of pages.
    let printed = false;
    byId("print").addEventListener("click", () => {
      printed = true;
      document.body.classList.add("with-rows");
      byId("body").replaceChildren(...found.map((place) => line(place, words())));
      print();
    });
    const closed = () => document.querySelectorAll(".themes details:not([open])");
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...closed()];
      for (const theme of opened) theme.open = true;
    });
    addEventListener("afterprint", () => {
      for (const theme of opened) theme.open = false;
      if (!printed) return;
      printed = false;
      document.body.classList.remove("with-rows");
      draw();
    });
  }

  build();
  listen();
  byId("table").hidden = false;
  draw();
  say();
  follow();
})();
