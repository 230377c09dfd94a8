// Drives the page in Chromium.

import assert from 'node:assert/strict';

export const SIZES = { phone: { width: 360, height: 740 }, wide: { width: 1280, height: 800 } };

/** The link that `pixy url` prints. */
export async function setupUrl(pixy) {
  const { code, output, all } = await pixy.command(['url']);
  assert.equal(code, 0, all);
  return /http:\S+/.exec(output)[0];
}

/** Opens the page with a session in a new browser context; an uncaught error in the page fails the test. */
export async function openPage(pixy, browser, t, options = {}) {
  const context = await browser.newContext({ viewport: SIZES.wide, reducedMotion: 'reduce', ...options });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const faults = [];
  page.on('pageerror', (error) => faults.push(error.message));
  t.after(() => context.close());
  t.after(() => assert.deepEqual(faults, []));
  await page.goto(await setupUrl(pixy));
  return { page, context, card: (name) => page.locator(`#of-${name}-card`), says: (text) => page.getByText(text).first().waitFor() };
}

export const press = (where, name) => where.getByRole('button', { name, exact: true }).click();

/** Follows the link of step 1 into a new tab; returns the tab once it has loaded. */
export async function openProvider({ card, context }, name) {
  const [tab] = await Promise.all([context.waitForEvent('page'), card(name).getByRole('link', { name: /^Open / }).click()]);
  await tab.waitForLoadState();
  return tab;
}
