// Streams one response as the OpenAI SDK's users do, configured by environment variables.
import OpenAI from 'openai';

const stream = await new OpenAI().responses.create({ model: 'small', stream: true, input: 'hi' });
for await (const event of stream) {
  if (event.type === 'response.output_text.delta') process.stdout.write(event.delta);
}
