// A minimal browser for logins: follows redirects with a cookie jar.

/** Follows redirects from `address` until one leaves the origin or carries a code or an error; returns that address. */
export async function logIn(address) {
  const start = new URL(address);
  const jar = new Map();
  let next = start;
  for (let steps = 0; steps < 12; steps += 1) {
    if (next.origin !== start.origin || next.searchParams.has('code') || next.searchParams.has('error')) return next.href;
    const response = await fetch(next, { redirect: 'manual', headers: { cookie: [...jar].map((pair) => pair.join('=')).join('; ') } });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      jar.set(name, value);
    }
    const location = response.headers.get('location');
    if (!location) throw new Error(`the login stopped with ${response.status} at ${next.pathname}: ${(await response.text()).slice(0, 500)}`);
    next = new URL(location, next);
  }
  throw new Error('the login redirects in a loop');
}

/** Opens the verification page of a device login and presses `press` (`confirm` or `abort`); returns the last page. */
export async function answerOnDevice(address, press = 'confirm') {
  const jar = new Map();
  let next = { url: new URL(address) };
  for (let steps = 0; steps < 16; steps += 1) {
    const { url, body } = next;
    const cookie = [...jar].map((pair) => pair.join('=')).join('; ');
    const response = await fetch(url, { method: body ? 'POST' : 'GET', body, redirect: 'manual', headers: { cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      jar.set(name, value);
    }
    const page = await response.text();
    const location = response.headers.get('location');
    const [, action] = /<form[^>]* action="([^"]*)"/.exec(page) ?? [];
    if (location) {
      next = { url: new URL(location, url) };
    } else if (action && !page.includes('type="text"')) { // a form without a text field: a script or a button submits it
      const fields = new Map([...page.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]) => [name, value]));
      if (fields.delete('confirm')) fields.set(press, 'yes');
      next = { url: new URL(action, url), body: new URLSearchParams([...fields]) };
    } else {
      return page;
    }
  }
  throw new Error('the device login redirects in a loop');
}

/** The text of the paste page at an address that {@link logIn} returned. */
export async function shownCode(redirected) {
  const response = await fetch(redirected);
  return response.text();
}
