// The API of the page: POST with a bearer token, JSON both ways.

const base = document.body.dataset.base;
const kept = 'turngate-check';
let session = '';

export class APIError extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
    this.code = code;
  }
}

async function post(call, token, body, wait = 20000) {
  let response;
  try {
    response = await fetch(`${base}/api/${call}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
      signal: AbortSignal.timeout(wait),
    });
  } catch {
    throw new APIError(0, 'unreachable');
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch { /* not ours */ }
  if (!response.ok) {
    throw new APIError(response.status, answer.error || 'foreign');
  }
  return answer;
}

// begin opens the session of the link, or goes on with the one that this tab
// has. The token leaves the address line, so that nobody passes it on.
export async function begin() {
  const token = location.hash.slice(1);
  let before = '';
  try {
    before = sessionStorage.getItem(kept) || '';
  } catch { /* switched off: a reload needs another link */ }
  if (!token) {
    session = before;
    if (!session) {
      throw new APIError(401, 'none');
    }
    return;
  }
  history.replaceState(null, '', location.pathname);
  try {
    ({ session } = await post('begin', token, {}));
  } catch (error) {
    if (error.code !== 'used' || !before) {
      throw error;
    }
    session = before; // the same link once more, in the tab that opened it
  }
  try {
    sessionStorage.setItem(kept, session);
  } catch { /* as above */ }
}

export const askPlan = () => post('plan', session, {});
export const askResult = (n) => post('result', session, { n });
export const tellEnd = (summary) => post('end', session, summary).catch(() => {});
