"""Questions that have nothing to do with any memory. The model's own answers to them are learned along, so that it keeps them:
common knowledge, small tasks, things about the user that nobody has told."""

from __future__ import annotations

ENGLISH = (
    "What is the capital of Italy?",
    "Write one sentence about the mountains.",
    "What does a teacher do?",
    "Explain what rain is in one sentence.",
    "Who wrote Romeo and Juliet?",
    "Give me three names of fruit.",
    "What is 7 plus 5?",
    "Translate 'good night' into Spanish.",
    "How do I boil an egg?",
    "Who is Albert Einstein?",
    "What is a violin?",
    "Name a city in Japan.",
    "Hello!",
    "Thank you for your help.",
    "What is the largest ocean?",
    "Write a short greeting for a friend.",
    "What can you do?",
    "Why is the sky blue?",
    "What is the opposite of cold?",
    "Tell me a fact about cats.",
    "What is my shoe size?",
    "Where does Queen Elizabeth live?",
    "What colour is grass?",
    "Summarise: The train was late, so Peter walked home.",
)
CHINESE = (
    "法国的首都是哪里？",
    "用一句话写写大海。",
    "老师是做什么的？",
    "天空为什么是蓝色的？",
    "三加五等于几？",
    "你好！",
    "谁写了《红楼梦》？",
    "说三种水果的名字。",
    "我的鞋码是多少？",
    "猫是什么动物？",
)
SYSTEMS = (None, "You are a helpful assistant.", None, "Answer the user's questions briefly.")
