// The person's browser: logs in at the address that `pixy link` shows, and reads the code on the page that it comes to.

import { logIn, shownCode } from '../peers/lib/browser.mjs';

console.log(await shownCode(await logIn(process.argv[2])));
