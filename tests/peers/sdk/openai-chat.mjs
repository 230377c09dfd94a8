// Streams one chat completion as the OpenAI SDK's users do, configured by environment variables.
import OpenAI from 'openai';

const stream = await new OpenAI().chat.completions.create({ model: 'small', stream: true, messages: [{ role: 'user', content: 'hi' }] });
for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? '');
