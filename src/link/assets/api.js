// Calls to Pixy. The session is in sessionStorage: cookies are shared across ports, this is not.

const KEY = "pixy-session";

export const session = () => sessionStorage.getItem(KEY);

export async function open(setup_code) {
  sessionStorage.setItem(KEY, (await call("POST", "/api/session", { setup_code })).session);
}

export async function close() {
  await call("DELETE", "/api/session").catch(() => {}); // it may have ended already
  sessionStorage.removeItem(KEY);
}

// JSON, or problem details (RFC 9457) are thrown.
export const call = async (...request) => (await send(...request)).json();

export const accounts = () => call("GET", "/api/accounts");

async function send(method, path, body) {
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${session()}` };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw { title: "Pixy does not answer.", detail: "Check that it runs, then try again." };
  });
  const { ok, status } = response;
  if (ok) return response;
  if (status === 401) sessionStorage.removeItem(KEY);
  throw { title: "Pixy could not do that.", ...(await response.json().catch(() => {})), status };
}

// Follows the accounts while the session lasts; every stream begins with all of them.
export async function watch(show, lost) {
  const mine = session(), lasts = () => session() === mine;
  for (let pause = 1; lasts(); pause = Math.min(pause * 2, 15)) {
    await stream((list) => { pause = 1; lasts() && show(list); }).catch(lost);
    await new Promise((done) => setTimeout(done, pause * 1000));
  }
}

// EventSource cannot send a header.
async function stream(show) {
  const reader = (await send("GET", "/api/events")).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read, rest = ""; !(read = await reader.read()).done; ) {
    const lines = (rest + read.value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) show(JSON.parse(line.slice(5)));
  }
}
