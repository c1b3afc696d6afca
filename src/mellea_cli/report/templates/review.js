"use strict";
(() => {
  const read = id => JSON.parse(document.getElementById(id).textContent);
  const find = id => document.getElementById(id);
  const facts = read("facts");
  const rows = read("data");
  const fields = facts.fields;
  // The judgements of this page outlive a reload.
  const store = "mellea-review:" + facts.page;
  const same = (one, other) => JSON.stringify(empty(one)) === JSON.stringify(empty(other));
  const empty = value => (value === undefined || value === "" || (Array.isArray(value) && !value.length) ? null : value);
  let judged = rows.map(row => ({ ...row.said }));
  let states = rows.map(() => "");
  let actions = [];
  let at = 0;
  let chosen = 0;
  let saved = true;

  const restore = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(store) || "null");
      if (kept && kept.states.length === rows.length) {
        ({ judged, states, at } = kept);
        saved = kept.saved;
      }
    } catch { /* without a store the judgements live as long as the page */ }
  };
  const keep = () => {
    try {
      localStorage.setItem(store, JSON.stringify({ judged, states, at, saved }));
    } catch { /* as above */ }
  };

  const value = field => (field.name in judged[at] ? judged[at][field.name] : rows[at].model[field.name]);
  const shown = (field, given) =>
    given === null || given === undefined ? "" : Array.isArray(given) ? given.join(field.joint) : typeof given === "object" ? JSON.stringify(given) : String(given);
  const hasChoices = field => field.choices.length > 0;
  const choiceOf = (field, index) => (field.kind === "bool" ? field.choices[index] === "true" : field.choices[index]);

  const act = () => {
    actions.push({ at, judged: { ...judged[at] }, state: states[at] });
    saved = false;
  };
  const give = (field, given) => {
    act();
    judged[at][field.name] = given;
    draw();
  };
  const label = (field, number) => {
    if (!hasChoices(field) || number > field.choices.length || (!number && field.kind === "label")) return;
    if (field.list) {
      const there = new Set(value(field) || []);
      if (number) {
        const one = field.choices[number - 1];
        if (!there.delete(one)) there.add(one);
      } else there.clear();
      give(field, field.choices.filter(one => there.has(one)));
    } else give(field, number ? choiceOf(field, number - 1) : null);
  };
  const typed = (field, text) => {
    const plain = text.trim().replace(/\s+/g, " ");
    if (field.list) return plain.split(field.joint.trim() || "|").map(one => one.trim()).filter(Boolean);
    if (!plain) return null;
    if ((field.kind === "int" || field.kind === "number") && !Number.isNaN(Number(plain))) return Number(plain);
    return plain;
  };
  const accept = () => {
    if (at >= rows.length) return;
    act();
    for (const field of fields) if (!(field.name in judged[at])) judged[at][field.name] = rows[at].model[field.name] ?? null;
    states[at] = "judged";
    move(at + 1);
  };
  const skip = () => {
    if (at >= rows.length) return;
    act();
    states[at] = "skipped";
    move(at + 1);
  };
  const undo = () => {
    const last = actions.pop();
    if (last) {
      judged[last.at] = last.judged;
      states[last.at] = last.state;
      saved = false;
      move(last.at);
    } else if (at > 0) move(at - 1);
  };
  const move = to => {
    at = to;
    chosen = 0;
    draw();
    (at < rows.length ? find("item") : find("end-title")).focus();
    window.scrollTo(0, 0);
  };

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };
  const fieldset = (field, index) => {
    const given = value(field);
    const legend = element("legend", { dir: "auto" }, field.name);
    if (!same(given, rows[at].model[field.name])) {
      legend.append(element("span", { className: "was" }, " (model: " + (shown(field, rows[at].model[field.name]) || "nothing") + ")"));
    }
    const set = element("fieldset", { className: index === chosen ? "chosen" : "" }, legend);
    if (index === chosen) set.setAttribute("aria-current", "true");
    if (hasChoices(field)) {
      const there = field.list ? given || [] : [shown(field, given)];
      const buttons = field.choices.map((choice, number) => {
        const key = index === chosen && number < 9 ? [element("kbd", {}, String(number + 1)), " "] : [];
        const button = element("button", { type: "button", dir: "auto" }, ...key, choice);
        button.setAttribute("aria-pressed", String(there.includes(choice)));
        button.addEventListener("click", () => {
          chosen = index;
          label(field, number + 1);
        });
        return button;
      });
      set.append(element("div", { className: "choices" }, ...buttons));
    } else {
      const input = element("input", { type: "text", value: shown(field, given), dir: "auto", autocomplete: "off" });
      input.setAttribute("aria-label", field.name);
      input.addEventListener("change", () => {
        if (!same(typed(field, input.value), value(field))) give(field, typed(field, input.value));
      });
      input.addEventListener("focus", () => choose(index, false));
      set.append(input);
    }
    return set;
  };
  const choose = (index, redraw = true) => {
    chosen = (index + fields.length) % fields.length;
    if (redraw) draw();
    else [...find("fields").children].forEach((one, number) => one.classList.toggle("chosen", number === chosen));
  };
  const draw = () => {
    keep();
    const over = at >= rows.length;
    for (const id of ["row", "fields", "keys"]) find(id).hidden = over;
    find("end").hidden = !over;
    const done = states.filter(one => one === "judged").length;
    find("progress").value = done;
    find("place").textContent = (over ? "" : `Row ${at + 1} of ${rows.length}, `) + `${done} judged` + (saved ? "" : ", not saved");
    if (over) return;
    const row = rows[at];
    find("item").textContent = "Row " + row.item;
    const sure = row.confidence === null ? "" : `, confidence ${row.confidence.toFixed(2)}`;
    find("sample").textContent = (row.sample === "random" ? "random sample" : "doubtful row") + sure;
    const parts = row.parts.map(([text, kind]) => (kind ? element("mark", { className: kind }, text) : text));
    find("text").replaceChildren(...parts);
    find("fields").replaceChildren(...fields.map(fieldset));
  };

  const lines = () => {
    const when = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    const found = [];
    rows.forEach((row, number) => {
      for (const field of fields) {
        if (!(field.name in judged[number]) || (field.name in row.said && same(row.said[field.name], judged[number][field.name]))) continue;
        const line = { item: row.item, text: row.text, field: field.name, model: row.model[field.name] ?? null };
        found.push({ ...line, person: judged[number][field.name], who: facts.who, when, sample: row.sample, ...(row.seed === null ? {} : { seed: row.seed }), ...(row.size === null ? {} : { size: row.size }) });
      }
    });
    return found.map(one => JSON.stringify(one) + "\n").join("");
  };
  const save = () => {
    const link = element("a", { href: URL.createObjectURL(new Blob([lines()], { type: "application/x-ndjson" })), download: facts.target });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
    draw();
  };

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inText = event.target instanceof HTMLInputElement;
    if (inText) {
      if (event.key === "Enter" || event.key === "Escape") {
        event.preventDefault();
        if (event.key === "Escape") event.target.value = shown(fields[chosen], value(fields[chosen]));
        event.target.blur();
        find("item").focus();
      }
      return;
    }
    const onButton = event.target instanceof HTMLButtonElement;
    const keys = {
      Enter: accept, a: accept, s: skip, u: undo,
      ArrowDown: () => choose(chosen + 1), j: () => choose(chosen + 1),
      ArrowUp: () => choose(chosen - 1), k: () => choose(chosen - 1),
      e: () => find("fields").children[chosen].querySelector("input, button").focus(),
    };
    if (at >= rows.length && event.key !== "u") return;
    if (onButton && event.key === "Enter") return;
    const number = /^[0-9]$/.test(event.key) ? Number(event.key) : null;
    const work = number === null ? keys[event.key] : () => label(fields[chosen], number);
    if (!work) return;
    event.preventDefault();
    work();
  });
  find("fields").addEventListener("submit", event => event.preventDefault());
  find("accept").addEventListener("click", accept);
  find("skip").addEventListener("click", skip);
  find("undo").addEventListener("click", undo);
  find("back").addEventListener("click", undo);
  find("save").addEventListener("click", save);
  window.addEventListener("beforeunload", event => {
    if (!saved) event.preventDefault();
  });
  restore();
  draw();
})();
