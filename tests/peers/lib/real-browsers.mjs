// The installed browsers: Chromium through Playwright, Firefox through WebDriver BiDi.

import { accessSync, constants } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import { listen } from './net.mjs';

/** A host name that only these browsers resolve to 127.0.0.1, as after DNS rebinding. */
export const EVIL = 'evil.example';

const QUIET = ['--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** The path of an installed browser, or nothing. */
export function installed(command) {
  const places = (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, command));
  return places.find((place) => {
    try {
      accessSync(place, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export function startChromium() {
  const root = process.getuid() === 0 ? ['--no-sandbox'] : []; // Chromium's sandbox does not run as root
  return chromium.launch({
    executablePath: installed('chromium'), args: [...QUIET, ...root, `--host-resolver-rules=MAP ${EVIL} 127.0.0.1`],
  });
}

export function startFirefox() {
  return puppeteer.launch({
    browser: 'firefox', executablePath: installed('firefox-esr'), headless: true,
    extraPrefsFirefox: { 'network.dns.localDomains': EVIL, 'app.update.enabled': false },
  });
}

/** The accessibility rules that a page violates. */
export async function violations(page) {
  await page.evaluate(await AXE);
  const { violations, passes } = await page.evaluate((values) => globalThis.axe.run(document, {
    resultTypes: ['violations'], runOnly: { type: 'tag', values },
  }), ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']);
  if (passes.length < 5) throw new Error('the accessibility rules matched nothing');
  return violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map(({ html }) => `    ${html.slice(0, 200)}`).join('\n')}`);
}

const AXE = readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/**
 * An attacker's site that sends every kind of cross-origin request to every call of the link surface, and frames the page.
 * `window.seen` lists what it could read of the responses.
 */
export async function startEvilSite(target, calls) {
  const page = `<!doctype html><title>A nice page</title><body><script>
    const target = ${JSON.stringify(target)}, calls = ${JSON.stringify(calls)};
    window.seen = [];
    const settle = (promise, what) => promise.then((answer) => seen.push(what + ': ' + answer), () => {});
    const attack = async () => {
      for (const [method, path] of calls) {
        const url = target + path, body = method === 'GET' ? undefined : '{"setup_code":"x","text":"x","key":"sk-evil"}';
        for (const options of [{}, { credentials: 'include' }, { headers: { 'content-type': 'application/json' } }, { headers: { authorization: 'Bearer x' } }]) {
          await settle(fetch(url, { method, body, ...options }).then((response) => response.status), 'fetch ' + path);
        }
        if (method === 'GET' || method === 'POST') await fetch(url, { method, body, mode: 'no-cors' }).catch(() => {});
        await new Promise((done) => { // a form is sent without a CORS preflight
          const frame = Object.assign(document.createElement('iframe'), { name: 'f' + Math.random() });
          const form = Object.assign(document.createElement('form'), {
            action: url, target: frame.name, method: method === 'GET' ? 'get' : 'post', enctype: 'text/plain',
          });
          form.append(Object.assign(document.createElement('input'), { name: '{"setup_code":"', value: '"}' }));
          document.body.append(frame, form);
          frame.onload = done;
          setTimeout(done, 500);
          form.submit();
        });
        await new Promise((done) => {
          const image = Object.assign(new Image(), { src: url, onload: () => { seen.push('img ' + path); done(); }, onerror: done });
          setTimeout(done, 500, image);
        });
        navigator.sendBeacon(url, body);
      }
      await new Promise((done) => {
        const socket = new WebSocket(target.replace('http', 'ws') + '/api/events');
        socket.onopen = () => { seen.push('websocket'); done(); };
        socket.onerror = done;
        setTimeout(done, 500);
      });
      await new Promise((done) => {
        const events = new EventSource(target + '/api/events');
        events.onmessage = () => seen.push('events');
        events.onopen = () => { seen.push('events'); done(); };
        events.onerror = () => { events.close(); done(); };
        setTimeout(done, 500);
      });
      const script = Object.assign(document.createElement('script'), { src: target + '/api/accounts', onload: () => seen.push('script') });
      document.body.append(script);
      const framed = Object.assign(document.createElement('iframe'), { id: 'framed', src: target + '/' });
      document.body.append(framed);
      await new Promise((done) => { framed.onload = done; setTimeout(done, 2000); });
      try { if (framed.contentDocument?.querySelector('#cards')) seen.push('frame'); } catch { /* another origin, as it should be */ }
      seen.push(...document.cookie ? ['cookie ' + document.cookie] : []);
      window.done = true;
    };
    attack();
  </script>`;
  const { url, close } = await listen((request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end(page);
  });
  return { port: new URL(url).port, close };
}
