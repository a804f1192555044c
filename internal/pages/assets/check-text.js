// The words of the page, in the language of the browser or the one chosen.

const remembered = 'turngate-language';
let tables = {};
let language = 'en';

export async function loadTexts(url) {
  tables = await (await fetch(url)).json();
  const first = (navigator.languages || [navigator.language || 'en'])[0] || 'en';
  language = chosen() || (isChinese(first) ? 'zh' : 'en');
}

const isChinese = (tag) => /^zh\b/i.test(tag || '');

function chosen() {
  try {
    const have = localStorage.getItem(remembered);
    return have in tables ? have : '';
  } catch {
    return ''; // storage is switched off
  }
}

export function choose(lang) {
  language = lang;
  try {
    localStorage.setItem(remembered, lang);
  } catch { /* for this time only */ }
}

export const currentLanguage = () => language;

// t is the text of a key with {name} filled in. What is missing shows its key.
export function t(key, values = {}) {
  const text = tables[language]?.[key] ?? tables.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

export const hasText = (key) => Boolean(tables.en?.[key]);
