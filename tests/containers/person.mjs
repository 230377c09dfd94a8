// The person's browser: logs in at the address that `pixy link` shows, and reads the code on the page that it comes to.

import { logIn, shownCode } from '../peers/lib/browser.mjs';

setTimeout(() => process.exit(1), 40_000).unref(); // as the first process of a container it is deaf to other ends
console.log(await shownCode(await logIn(process.argv[2])));
