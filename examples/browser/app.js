// The artifact in ./model, read by transformers.js; nothing is fetched from anywhere else.
import { AutoModelForSequenceClassification, AutoTokenizer, env, Tensor } from '@huggingface/transformers';
import { encode, prepare, readPreparation, softmax } from './prepare.js';

const PAUSE_MS = 200; // after the last key
const EXAMPLES = ['배우들 연기가 정말 훌륭해요', '돈이 아깝다', '기대했는데 그냥 그래요'];

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = './';
env.useBrowserCache = false; // the server's files may change under the same names
env.useWasmCache = false;
const wasm = env.backends.onnx.wasm;
wasm.wasmPaths = { wasm: new URL('vendor/ort-wasm-simd-threaded.wasm', document.baseURI).href };
wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

const at = (id) => document.getElementById(id);
let model = null;
let tokenizer = null;
let manifest = null;
let preparation = null;
let timer = 0;
let wanted = 0; // the number of the newest question: older answers are not shown

const show = (state, text) => {
  document.body.dataset.state = state;
  at('status').textContent = text;
};

async function readManifest() {
  const answer = await fetch('model/manifest.json');
  if (!answer.ok) throw new Error('model/manifest.json: 산출물 폴더가 없습니다');
  return answer.json();
}

/** Open one ONNX file of the artifact, whatever its name. */
async function openModel(path) {
  show('loading', '모델을 읽는 중…');
  at('precision').disabled = true; // one at a time
  const [, folder, stem] = path.match(/^(.*)\/(.*)\.onnx$/);
  await model?.dispose?.();
  model = null;
  try {
    tokenizer ??= await AutoTokenizer.from_pretrained('model');
    model = await AutoModelForSequenceClassification.from_pretrained('model', {
      subfolder: folder,
      model_file_name: stem,
      dtype: 'fp32', // adds no suffix to the file's name
      device: 'wasm',
    });
  } finally {
    at('precision').disabled = false;
  }
}

/** Scores of every label, the best first: what the runtime in Python computes. */
async function classify(text) {
  const ids = encode(tokenizer, text, preparation, manifest);
  const row = (values) => new Tensor('int64', BigInt64Array.from(values, BigInt), [1, ids.length]);
  const all = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: ids.map(() => 0) };
  const feed = Object.fromEntries(manifest.inputs.map((name) => [name, row(all[name])]));
  const { logits } = await model(feed);
  return softmax(logits.data)
    .map((score, index) => ({ label: manifest.labels[index], score }))
    .sort((a, b) => b.score - a.score);
}

async function answer() {
  const text = at('text').value;
  const number = ++wanted;
  if (!model) return;
  if (!prepare(text, preparation).trim()) return draw([]), show('ready', '준비되었습니다');
  document.body.dataset.state = 'busy';
  const began = performance.now();
  const scores = await classify(text);
  if (number !== wanted) return;
  draw(scores);
  show('done', `${(performance.now() - began).toFixed(0)} ms`);
}

function draw(scores) {
  at('label').textContent = scores[0]?.label ?? '\u00a0';
  at('label').dataset.score = scores[0]?.score ?? '';
  const { labels } = manifest;
  const rows = [...scores].sort((a, b) => labels.indexOf(a.label) - labels.indexOf(b.label));
  at('scores').replaceChildren(...rows.map(({ label, score }) => {
    const row = document.createElement('div');
    row.className = 'score';
    const [name, bar, share] = ['span', 'div', 'span'].map((tag) => document.createElement(tag));
    const filled = document.createElement('i');
    filled.style.width = share.textContent = `${(100 * score).toFixed(1)}%`;
    bar.className = 'bar';
    bar.append(filled);
    name.textContent = label;
    row.append(name, bar, share);
    return row;
  }));
}

const soon = () => { clearTimeout(timer); timer = setTimeout(() => guard(answer), PAUSE_MS); };

async function guard(action) {
  try {
    await action();
  } catch (fault) {
    show('error', `안 됩니다: ${fault.message ?? fault}`);
  }
}

await guard(async () => {
  manifest = await readManifest();
  preparation = readPreparation(manifest);
  document.title = manifest.name;
  const files = Object.entries(manifest.files).filter(([, file]) => file.path.endsWith('.onnx'));
  at('precision').replaceChildren(...files.map(([name, file]) =>
    new Option(`${name} · ${(file.bytes / 1e6).toFixed(0)} MB`, file.path)));
  const int8 = files.find(([name]) => name === 'int8') ?? files[0];
  at('precision').value = int8[1].path;
  at('examples').replaceChildren(...EXAMPLES.map((text) => {
    const button = Object.assign(document.createElement('button'), { textContent: text });
    button.onclick = () => { at('text').value = text; guard(answer); };
    return button;
  }));
  at('precision').onchange = () => guard(async () => {
    await openModel(at('precision').value);
    await answer();
  });
  at('text').oninput = soon;
  await openModel(at('precision').value);
  show('ready', '준비되었습니다');
  await answer();
});
