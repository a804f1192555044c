// The words of a page, in the language of the browser or the one chosen.

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

// languageButtons lets the buttons with data-lang choose; then the page is drawn
// anew.
export function languageButtons(show) {
  const buttons = document.querySelectorAll('[data-lang]');
  const mark = () => {
    document.documentElement.lang = tag();
    for (const b of buttons) b.setAttribute('aria-pressed', String(b.dataset.lang === language));
  };
  for (const b of buttons) {
    b.addEventListener('click', () => {
      language = b.dataset.lang;
      try {
        localStorage.setItem(remembered, language);
      } catch { /* for this time only */ }
      mark();
      show();
    });
  }
  mark();
}

// tag is the language as HTML and Intl spell it.
export const tag = () => (language === 'zh' ? 'zh-CN' : 'en');

// t is the text of a key with {name} filled in: a value, or [key, values] of
// another text. What is missing shows its key.
export function t(key, values = {}) {
  const text = tables[language]?.[key] ?? tables.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => (Array.isArray(values[name]) ? t(...values[name]) : values[name] ?? ''));
}

export const hasText = (key) => Boolean(tables.en?.[key]);
