// Joining a run from the page: the box that an invite is pasted into, and what came of it.

import { post, Refused } from './api.js';
import { say, sentence } from './words.js';

/** Brings the form to life; `joined(answer)` is called once the agent is in the run. */
export function joining(form, joined) {
  const part = name => form.querySelector(`#${name}`);
  const [invite, name, button, asking, error] = ['invite', 'device-name', 'join-button', 'asking', 'join-error'].map(part);
  const fail = words => {
    say(error, words);
    if (words) invite.setAttribute('aria-invalid', 'true'); else invite.removeAttribute('aria-invalid');
    if (words) invite.focus();
  };
  invite.addEventListener('input', () => fail(''));
  form.addEventListener('submit', async event => {
    event.preventDefault();
    if (button.disabled) return;
    if (!invite.value.trim()) return fail('Paste the invite first: a link that starts with “nightjar:”.');
    fail('');
    button.disabled = true;
    say(asking, 'Asking the coordinator …');
    try {
      const answer = await (await post('/join', { invite: invite.value, name: name.value.trim() || null })).json();
      form.reset();
      await joined(answer);
    } catch (failed) {
      // What was pasted stays, to be looked at and mended.
      fail(failed instanceof Refused ? sentence(failed.message) : 'Nightjar does not answer.');
    } finally {
      button.disabled = false;
      say(asking, '');
    }
  });
}
