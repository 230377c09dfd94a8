// The browser of a login: logs in at the address that `pixy link` prints, and prints the code that the final page shows.

import { logIn, shownCode } from '../peers/lib/browser.mjs';

setTimeout(() => process.exit(1), 40_000).unref(); // PID 1 of a container ignores signals without a handler
console.log(await shownCode(await logIn(process.argv[2])));
