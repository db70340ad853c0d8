// npm openai: each feature once.
import OpenAI, { toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { done, headers, key, tell, url } from "./outside.mjs";

const client = new OpenAI({ baseURL: url, apiKey: key, defaultHeaders: headers, maxRetries: 0 });
const said = (content) => [{ role: "user", content }];
const Trip = z.object({ city: z.string(), days: z.number().int(), stops: z.array(z.string()) });
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather at a place.",
    parameters: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
  },
};

tell("chat", await client.chat.completions.create({ model: "m", messages: said("Tell me about kites. 你好 😀") }));
tell("n", await client.chat.completions.create({
  model: "m", n: 2, logprobs: true, top_logprobs: 2, seed: 7, user: "u", metadata: { a: "b" }, messages: said("Kites?"),
}));
const stream = await client.chat.completions.create({
  model: "m", stream: true, stream_options: { include_usage: true }, n: 2, messages: said("Tell me of kites."),
});
for await (const chunk of stream) tell("chunk", chunk);
const parts = [
  { type: "text", text: "What is in this picture?" },
  { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=", detail: "low" } },
  { type: "input_audio", input_audio: { data: "UklGRg==", format: "wav" } },
];
tell("parts", await client.chat.completions.create({ model: "m", messages: said(parts) }));
tell("parsed", await client.chat.completions.parse({
  model: "m", messages: said("A trip of 3 days to 'Oslo'"), response_format: zodResponseFormat(Trip, "trip"),
}));
const runner = client.chat.completions.runTools({
  model: "m",
  messages: said("What is the weather in 'Oslo'?"),
  tools: [{ ...weather, function: { ...weather.function, function: () => "Rain", parse: JSON.parse } }],
});
tell("tools", await runner.finalContent());
tell("rounds", runner.messages);
const streaming = client.chat.completions.stream({ model: "m", messages: said("The weather, please."), tools: [weather] });
tell("streamed tools", await streaming.finalChatCompletion());

tell("response", await client.responses.create({ model: "m", input: "Tell me about kites.", instructions: "Be brief." }));
const events = await client.responses.create({
  model: "m", stream: true, store: false, include: ["reasoning.encrypted_content"], input: said("Tell me about kites."),
});
for await (const event of events) tell("event", event);
const first = await client.responses.create({
  model: "m", input: "What is the weather in 'Oslo'?", tools: [{ type: "function", strict: false, ...weather.function }],
});
const call = first.output.find((item) => item.type === "function_call");
tell("second", await client.responses.create({
  model: "m", previous_response_id: first.id, input: [{ type: "function_call_output", call_id: call.call_id, output: "Rain" }],
}));

tell("embeddings", await client.embeddings.create({ model: "m", input: ["a", "b"], encoding_format: "float" }));
tell("model", (await client.models.retrieve("org/fake-2")).id);
tell("file", await client.files.create({ purpose: "assistants", file: await toFile(Buffer.from("hello"), "a.txt") }));
try {
  await client.moderations.create({ input: "x" });
} catch (error) {
  tell("error", [error.status, error.message, error.constructor.name]);
}
done();
