// The person's browser, as far as a login needs one: follows redirects with a cookie jar.

/** Opens `address` and follows it until it leaves the server that it started on, or arrives at the page with the code. */
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
  throw new Error('the login went round in circles');
}

/** Opens the page of a device login and presses `press` (`confirm` or `abort`) where it asks; answers what it says at the end. */
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
    } else if (action && !page.includes('type="text"')) { // nothing to type: a browser sends it, or a button does
      const fields = new Map([...page.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]) => [name, value]));
      if (fields.delete('confirm')) fields.set(press, 'yes');
      next = { url: new URL(action, url), body: new URLSearchParams([...fields]) };
    } else {
      return page;
    }
  }
  throw new Error('the device login went round in circles');
}

/** What the paste page shows for an address that {@link logIn} returned. */
export async function shownCode(redirected) {
  const response = await fetch(redirected);
  return response.text();
}
