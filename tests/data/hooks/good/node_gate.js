const fs = require('fs');
const data = JSON.parse(fs.readFileSync(0, 'utf8'));
const m = /rm -rf/.exec(data.tool_input.command || '');
let i = 0;
while (true) { if (i++ > 3) break; }
for (;;) { if (i-- < 0) { break; } }
if (m) {
  console.error('Blocked: rm -rf');
  process.exit(2);
}
