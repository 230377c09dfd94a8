// Streams one answer as the Anthropic SDK's users do, configured by environment variables.
import Anthropic from '@anthropic-ai/sdk';

const stream = new Anthropic().messages.stream(
  { model: 'small', max_tokens: 100, messages: [{ role: 'user', content: 'hi' }] },
  { headers: { 'anthropic-beta': 'one-2025-01-01,two-2025-01-01' } },
);
stream.on('text', (text) => process.stdout.write(text));
await stream.finalMessage();
