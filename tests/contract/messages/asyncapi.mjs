// Parses an AsyncAPI document with the parser installed in the folder argv[2]; prints its errors, one a line.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
const require = createRequire(process.argv[2] + '/');
const { Parser } = require('@asyncapi/parser');
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[3], 'utf8'));
for (const one of diagnostics) if (one.severity === 0) console.log(`${one.path.join('.')}: ${one.message}`);
if (!document) { console.log('no document'); process.exit(1); }
console.error(`${document.allChannels().length} channels, ${document.allMessages().length} messages`);
