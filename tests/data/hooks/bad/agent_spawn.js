#!/usr/bin/env node
const { spawn } = require('child_process');
const child = spawn('claude', ['-p', 'go on'], { detached: true, stdio: 'ignore' });
child.unref();
