// The AI SDK through @ai-sdk/openai-compatible: streamText, generateObject, tools over several steps.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { done, headers, key, tell, url } from "./outside.mjs";

const provider = createOpenAICompatible({
  name: "memrelay", baseURL: url, apiKey: key, headers, includeUsage: true, supportsStructuredOutputs: true,
});
const model = provider("m");
const schema = z.object({ city: z.string(), days: z.number().int() });
const tools = {
  get_weather: tool({
    description: "The weather at a place.",
    inputSchema: z.object({ place: z.string() }),
    execute: async ({ place }) => `Rain in ${place}`,
  }),
};

const whole = await generateText({ model, system: "Be brief.", prompt: "Tell me about kites. 你好 😀", maxRetries: 0 });
tell("text", [whole.text, whole.usage.totalTokens, whole.finishReason]);

const streamed = streamText({ model, prompt: "Tell me about kites.", maxRetries: 0 });
for await (const part of streamed.fullStream) if (part.type.startsWith("text")) tell("part", [part.type, part.text]);
tell("streamed", [await streamed.text, (await streamed.usage).totalTokens, await streamed.reasoningText]);

const steps = await generateText({
  model, tools, prompt: "What is the weather in 'Oslo'?", stopWhen: stepCountIs(4), maxRetries: 0,
});
tell("steps", [steps.text, steps.steps.map((step) => step.toolCalls.map((call) => [call.toolName, call.input]))]);

const agent = streamText({ model, tools, prompt: "The weather in 'Rome', please.", stopWhen: stepCountIs(4), maxRetries: 0 });
tell("streamed steps", [await agent.text, (await agent.steps).length]);

const made = await generateObject({ model, schema, prompt: "A trip of 3 days to 'Oslo'", maxRetries: 0 });
tell("object", made.object);
const growing = streamObject({ model, schema, prompt: "A trip of 4 days to 'Rome'", maxRetries: 0 });
for await (const partial of growing.partialObjectStream) tell("partial", partial);

const picture = { type: "image", image: Buffer.from("89504e470d0a1a0a", "hex"), mediaType: "image/png" };
const content = [{ type: "text", text: "What is this?" }, picture];
tell("picture", (await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 })).text);

const vectors = await embedMany({ model: provider.embeddingModel("m"), values: ["a", "b"], maxRetries: 0 });
tell("embeddings", vectors.embeddings);
done();
