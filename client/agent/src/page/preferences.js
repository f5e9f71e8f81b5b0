// The owner's preferences, made from the agent's own table: a field for each, saved at once, with the answer beside it.

import { get, post, Refused } from './api.js';
import { el, say, sentence } from './words.js';
import { hoursField } from './hours.js';

const SAID_MS = 5000;

/** The form of all preferences. */
export class Preferences {
  constructor(place) {
    this.place = place;
    this.fields = new Map();
  }

  /** Reads the table; makes the fields the first time, and later shows what changed elsewhere. */
  async load() {
    try {
      const rows = await get('/preferences');
      if (rows.length !== this.fields.size) this.build(rows);
      rows.forEach(row => this.fields.get(row.key)?.update(row));
    } catch (error) {
      if (!this.fields.size) this.place.replaceChildren(el('p', { class: 'none' }, error instanceof Refused ? sentence(error.message) : 'Nightjar does not answer.'));
    }
  }

  /** Leads to one of them. */
  open(key) {
    const field = this.fields.get(key)?.element;
    if (!field) return;
    field.closest('details').open = true;
    field.scrollIntoView({ block: 'center' });
    [...field.querySelectorAll('input, select, button')].find(part => part.checkVisibility())?.focus({ preventScroll: true });
  }

  build(rows) {
    const groups = new Map();
    for (const row of rows) groups.set(row.group, [...groups.get(row.group) ?? [], row]);
    this.fields.clear();
    this.place.replaceChildren(...[...groups].map(([name, members], i) => {
      // On a narrow screen only the first is unfolded.
      const open = i === 0 || matchMedia('(min-width: 44rem)').matches;
      return el('details', { class: 'group', open }, el('summary', {}, el('h3', {}, name)), members.map(row => {
        const field = new Field(row, () => this.load());
        this.fields.set(row.key, field);
        return field.element;
      }));
    }));
  }
}

/** One preference: its words, its widget, and what was last said of it. */
class Field {
  constructor(row, saved) {
    this.row = row;
    this.saved = saved;
    this.id = `pref-${row.key}`;
    this.widget = (WIDGETS[row.kind] ?? WIDGETS.text)(row, this.id, text => this.save(text));
    this.said = el('span', { class: 'said', role: 'status' });
    this.error = el('p', { class: 'error', id: `${this.id}-error`, role: 'alert' });
    this.reset = el('button', { type: 'button', class: 'reset', onclick: () => this.save(this.row.default) }, 'Back to the default');
    this.origin = el('p', { class: 'origin' });
    const name = this.widget.group ? el('span', { class: 'label', id: `${this.id}-label` }, row.label) : el('label', { class: 'label', for: this.id }, row.label);
    this.element = el('div', { class: `pref kind-${row.kind}`, 'data-key': row.key },
      el('div', { class: 'words' }, el('div', { class: 'naming' }, name, this.said), row.help && el('p', { class: 'help', id: `${this.id}-help` }, sentence(row.help))),
      el('div', { class: 'field' }, this.widget.element, this.error, this.origin, this.reset));
    this.update(row);
  }

  update(row) {
    this.row = row;
    // What the owner is about to write stays.
    if (!this.element.contains(document.activeElement) || this.justSaved) this.widget.show(row.value);
    this.justSaved = false;
    this.reset.setAttribute('aria-label', `${row.label}: back to the default`);
    const winner = { environment: 'An environment variable', command_line: 'A word on the command line' }[row.source];
    // What wins over the file is not changed by it.
    this.reset.hidden = row.value === row.default || winner !== undefined;
    say(this.origin, winner ? `${winner} sets this and wins over what is saved here.` : '');
  }

  async save(text) {
    try {
      await post('/preferences', { key: this.row.key, value: text });
      this.fail('');
      say(this.said, 'Saved');
      clearTimeout(this.fading);
      this.fading = setTimeout(() => say(this.said, ''), SAID_MS);
      this.justSaved = true;
      await this.saved();
    } catch (error) {
      this.fail(error instanceof Refused ? sentence(error.message) : 'Not saved: Nightjar does not answer.');
    }
  }

  fail(words) {
    say(this.error, words);
    if (words) say(this.said, '');
    this.element.querySelectorAll('input, select').forEach(input => words ? input.setAttribute('aria-invalid', 'true') : input.removeAttribute('aria-invalid'));
  }
}

/** The parts of a list that is text. */
const listed = text => String(text ?? '').split(',').map(part => part.trim()).filter(Boolean);
const describe = id => `${id}-help ${id}-error`;

/** A widget for each kind: an element, and how it shows a value. Values are the text that the file and the command line take. */
const WIDGETS = {
  switch: (row, id, save) => {
    const input = el('input', { type: 'checkbox', role: 'switch', id, 'aria-describedby': describe(id), onchange: () => save(String(input.checked)) });
    return { element: el('span', { class: 'switch' }, input), show: value => { input.checked = value === 'true'; } };
  },

  /** A number, and where the table allows it a switch for "off". */
  number: (row, id, save) => {
    const input = el('input', { type: 'number', id, step: 'any', min: row.min, max: row.max, inputmode: 'decimal', 'aria-describedby': `${describe(id)} ${id}-unit`, onchange: () => input.value === '' ? null : save(input.value) });
    const number = el('span', { class: 'number' }, input, el('span', { id: `${id}-unit`, class: 'unit' }, row.unit ?? ''));
    if (!row.off) return { element: number, show: value => { input.value = value; } };
    const on = el('input', { type: 'checkbox', role: 'switch', 'aria-label': `${row.label}: on or off`, onchange: () => {
      number.hidden = !on.checked;
      if (!on.checked) save('off');
      else if (input.value) save(input.value);
      else input.focus();
    } });
    const show = value => {
      on.checked = value !== 'off';
      number.hidden = !on.checked;
      if (on.checked) input.value = value;
    };
    return { element: el('div', { class: 'switched' }, el('span', { class: 'switch' }, on), number), show };
  },

  choice: (row, id, save) => {
    const choices = row.choices ?? [];
    if (choices.length > 4) {
      const select = el('select', { id, 'aria-describedby': describe(id), onchange: () => save(select.value) }, choices.map(c => el('option', { value: c.value }, c.label)));
      return { element: select, show: value => { select.value = value; } };
    }
    const inputs = choices.map((c, i) => el('input', { type: 'radio', name: id, id: `${id}-${i}`, value: c.value, onchange: () => save(c.value) }));
    // Long words stand below each other, short ones side by side.
    const long = choices.some(c => c.label.length > 20);
    const element = el('div', { class: long ? 'choices stacked' : 'choices', role: 'radiogroup', 'aria-labelledby': `${id}-label`, 'aria-describedby': describe(id) },
      choices.map((c, i) => [inputs[i], el('label', { for: `${id}-${i}` }, c.label)]));
    return { element, group: true, show: value => inputs.forEach(input => { input.checked = input.value === value; }) };
  },

  /** Several of a few. */
  choices: (row, id, save) => {
    const inputs = (row.choices ?? []).map((c, i) => el('input', { type: 'checkbox', id: `${id}-${i}`, value: c.value, onchange: () => save(inputs.filter(input => input.checked).map(input => input.value).join(', ')) }));
    const element = el('div', { class: 'several', role: 'group', 'aria-labelledby': `${id}-label`, 'aria-describedby': describe(id) },
      inputs.map((input, i) => el('label', {}, input, row.choices[i].label)));
    return { element, group: true, show: value => inputs.forEach(input => { input.checked = listed(value).includes(input.value); }) };
  },

  hours: (row, id, save) => hoursField(row, id, describe(id), save),

  programs: (row, id, save) => {
    let names = [];
    const list = el('ul', { class: 'names', 'aria-label': row.label });
    const input = el('input', { type: 'text', id, placeholder: 'name of a program', autocapitalize: 'off', spellcheck: 'false', 'aria-describedby': describe(id), onkeydown: event => event.key === 'Enter' && add() });
    const add = () => { const name = input.value.trim(); if (name) { input.value = ''; save([...names, name].join(', ')); } };
    const remove = name => { save(names.filter(other => other !== name).join(', ')); input.focus(); };
    return {
      element: el('div', { class: 'programs' }, list, el('span', { class: 'adding' }, input, el('button', { type: 'button', onclick: add }, 'Add'))),
      show: value => {
        names = listed(value);
        list.hidden = names.length === 0;
        list.replaceChildren(...names.map(name => el('li', {}, name, el('button', { type: 'button', 'aria-label': `Remove ${name}`, onclick: () => remove(name) }, '×'))));
      },
    };
  },

  text: (row, id, save) => {
    const input = el('input', { type: 'text', id, autocapitalize: 'off', spellcheck: 'false', 'aria-describedby': describe(id), onchange: () => save(input.value) });
    return { element: input, show: value => { input.value = value; } };
  },
};
