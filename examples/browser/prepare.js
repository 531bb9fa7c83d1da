// What kotune does to a text before the model reads it, as manifest.json's `preparation` says;
// the same steps as finetune/core/preparation.py, held together by a test.

// Python's white space, spelt out: JavaScript's \s lacks U+001C to U+001F and U+0085, and has U+FEFF.
const SPACES = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/gu;
const LONE = /\p{Surrogate}/gu; // with the flag u a pair is one character, no surrogate
const OLD = { unicode: 'none', casing: 'keep', whitespace: 'keep', truncation_side: 'right' };

/** How the artifact's texts are prepared; one without the key was checked with texts as they come. */
export function readPreparation(manifest) {
  const how = { ...OLD, segments: 'zeros', special_tokens: 'parsed', ...manifest.preparation };
  const known = {
    unicode: ['NFC', 'NFKC', 'none'], casing: ['keep', 'lower'], whitespace: ['fold', 'keep'],
    truncation_side: ['right', 'left'], truncation_strategy: ['longest_first'],
    segments: ['zeros'], special_tokens: ['parsed'],
  };
  for (const [name, value] of Object.entries(how)) {
    if (!known[name]?.includes(value)) throw new Error(`preparation: ${name} ${value}`);
  }
  return how;
}

/** The text as the tokenizer is to read it. */
export function prepare(text, how) {
  let result = text.replace(LONE, '\ufffd');
  if (how.unicode !== 'none') result = result.normalize(how.unicode);
  if (how.casing === 'lower') result = result.toLowerCase();
  if (how.whitespace === 'fold') result = result.replace(SPACES, ' ').replace(/^ | $/g, '');
  return result;
}

/** Token ids of a text, special tokens kept where a long one is cut: transformers.js loses the last. */
export function encode(tokenizer, text, how, { max_length: maxLength, pad_token_id: pad }) {
  const prepared = prepare(text, how);
  const plain = tokenizer.encode(prepared, { add_special_tokens: false });
  const whole = tokenizer.encode(prepared);
  const [ids, bare] = [whole.ids ?? whole, plain.ids ?? plain];
  if (ids.length === 0) return [pad]; // as in Python: no model answers no token
  if (ids.length <= maxLength) return ids;
  const added = ids.length - bare.length;
  const before = Array.from({ length: added + 1 }, (_, at) => at)
    .find((at) => bare.every((id, place) => ids[at + place] === id));
  if (before === undefined) throw new Error('the tokenizer puts its special tokens inside a text');
  const room = maxLength - added;
  const kept = how.truncation_side === 'left' ? bare.slice(bare.length - room) : bare.slice(0, room);
  return [...ids.slice(0, before), ...kept, ...ids.slice(before + bare.length)];
}

/** Probabilities of logits. */
export function softmax(logits) {
  const powers = Array.from(logits, (value) => Math.exp(value - Math.max(...logits)));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}
