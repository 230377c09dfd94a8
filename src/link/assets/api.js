// Calls to Pixy. The session is kept in sessionStorage and sent as a header: cookies are shared across ports, this is not.

const KEY = "pixy-session";

export const session = () => sessionStorage.getItem(KEY);

export async function open(setup_code) {
  sessionStorage.setItem(KEY, (await call("POST", "/api/session", { setup_code })).session);
}

// Answers JSON, or throws problem details (RFC 9457) as `{title, detail, code, status}`.
export const call = async (...request) => (await send(...request)).json();

export const accounts = () => call("GET", "/api/accounts");

async function send(method, path, body) {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${session()}` };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw { title: "Pixy does not answer.", detail: "See whether it still runs, then try again." };
  });
  const { ok, status } = response;
  if (ok) return response;
  if (status === 401) sessionStorage.removeItem(KEY);
  const { title = "Pixy could not do that.", detail, type = "" } = await response.json().catch(() => ({}));
  throw { title, detail, status, code: type.split(/[:/]/).pop() };
}

// Follows the accounts while the session lasts: by events, and by asking every 5 s between two streams.
export async function watch(show, lost) {
  const mine = session(), lasts = () => session() === mine, take = (list) => lasts() && show(list);
  for (let pause = 1; lasts(); pause = Math.min(pause * 2, 30)) {
    await stream((list) => { pause = 1; take(list); }).catch(({ status }) => status && lost({ status }));
    for (let left = pause; left > 0 && lasts(); left -= 5) {
      await accounts().then(take, lost);
      await new Promise((done) => setTimeout(done, Math.min(left, 5) * 1000));
    }
  }
}

// EventSource cannot send a header, so the stream is read by hand.
async function stream(show) {
  const reader = (await send("GET", "/api/events")).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read, rest = ""; !(read = await reader.read()).done; ) {
    const lines = (rest + read.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) show(JSON.parse(line.slice(5)));
  }
}
