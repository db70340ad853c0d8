"""Reading a conversation off what clients resend: the new turn, the user's own words, the place of everything."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy import fence
from proxy.sessions import Conversation, is_task, read, spoken
from tests.linear import assert_linear


def user(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def system(text: str, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": text}


def tool(text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "c", "content": text}


def parts(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in texts]


def heard(*messages: Any) -> Conversation:
    conversation = read(messages)
    assert conversation is not None
    return conversation


CALL: dict[str, Any] = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
IMAGE = [{"type": "image_url", "image_url": {"url": "data:,"}}]
RAG = "### Task:\nRespond to the user query using the provided context.\n<context>\n{}\n</context>\n\n{}"
BLOCK = fence.wrap(fence.RECALL, "01234567", "Notes", ["my secret is zq"])


@pytest.mark.parametrize(
    ("messages", "text", "asks"),
    [
        ([user("a")], "a", 0),
        ([system("s"), user("a")], "a", 1),
        ([system("s", "developer"), user("a"), assistant("b"), user("c")], "c", 3),
        ([user("a"), assistant("b"), user("c"), user("d")], "c\nd", 3),
        ([user("a"), assistant(None, **CALL), tool("t")], "a", 0),
        ([user("a"), assistant("Let me see.", **CALL), tool("t"), assistant("More.", **CALL), tool("t")], "a", 0),
        (
            [
                user("a"),
                assistant(None, function_call={"name": "f"}),
                {"role": "function", "name": "f", "content": "t"},
            ],
            "a",
            0,
        ),
        (
            [user("a"), assistant("Let me see.", function_call={"name": "f"}), {"role": "function", "content": "t"}],
            "a",
            0,
        ),
        ([user("a"), assistant("Let me see.", **CALL), tool("t"), assistant("b"), user("c")], "c", 4),
        ([user("a"), assistant("half an")], "a", 0),
        ([user("a"), assistant("b"), user("c"), assistant("half")], "c", 2),
        ([user(parts("a", "b"))], "a\nb", 0),
        ([user([*IMAGE, *parts("a")])], "a", 0),
        ([user("a"), assistant(parts("b")), user("c")], "c", 2),
        ([user("a"), assistant("b"), user(IMAGE)], "", -1),
        ([user(IMAGE), assistant("b"), user("c")], "c", 2),
        ([user("a"), assistant(None, refusal="I can't."), user("c")], "c", 2),
        ([user("a"), assistant(None, audio={"id": "x"}), user("c")], "c", 2),
        ([user("a"), system("post-history instruction")], "a", 0),
        ([user("a", name="ann")], "a", 0),
        ([user(f"{BLOCK}\n\na")], "a", 0),
        ([user(RAG.format("my name is Page", "a"))], "a", 0),
    ],
)
def test_the_new_turn_is_what_was_said_since_the_last_answer(messages: list[Any], text: str, asks: int) -> None:
    conversation = heard(*messages)
    assert (conversation.text, conversation.asks) == (text, asks)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [system("s")],
        [assistant("b")],
        [user("")],
        [user("  \n")],
        [user(None)],
        [user(IMAGE)],
        [user(7)],
        [user({"text": "a"})],
        [7, None, "user"],
        [{"role": ["user"], "content": "a"}],
        [user([{"type": ["text"], "text": "a"}, {"text": "a"}, {"type": "text", "text": 7}, 7])],
    ],
)
def test_where_nobody_says_anything_there_is_no_conversation(messages: list[Any]) -> None:
    assert read(messages) is None
    assert not is_task({"messages": messages, "response_format": {"json_schema": {"name": ["x"]}}}, {})


def test_any_mixture_can_be_read() -> None:
    dice = random.Random(3)
    contents = [
        "a",
        "",
        None,
        7,
        [],
        parts("a"),
        IMAGE,
        [7],
        {"x": 1},
        "<think>",
        "</think>a",
        BLOCK,
        "### Task:</context>",
    ]
    for _ in range(2000):
        messages = [
            {"role": dice.choice(["user", "assistant", "system", "tool", None, 7]), "content": dice.choice(contents)}
            | dice.choice([{}, {}, CALL, {"tool_calls": 7}, {"refusal": 7}, {"audio": 7}, {"name": 7}])
            for _ in range(dice.randrange(6))
        ]
        conversation = read(messages)
        if conversation is not None:
            assert conversation.asks < len(messages)
            assert len(conversation.tail("x")) == 32


# --- place ----------------------------------------------------------------------------------------------------------------

HISTORIES: dict[str, list[tuple[list[dict[str, Any]], str]]] = {  # what is added to the history, and the answer
    "plain": [([user("a")], "b"), ([user("c")], "d"), ([user("e")], "f")],
    "the same text twice": [([user("yes")], "ok"), ([user("yes")], "ok"), ([user("yes")], "ok")],
    "several messages in a row": [([user("a"), user("b")], "c"), ([user("d"), user("e")], "f")],
    "an image between": [([user("a")], "b"), ([user(IMAGE)], "c"), ([user("d")], "e")],
    "a tool loop": [
        ([user("a"), assistant("Let me see.", **CALL), tool("t"), assistant(None, **CALL), tool("t")], "b"),
        ([user("c")], "d"),
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_each_answer_leads_to_the_place_of_the_next_question(name: str) -> None:
    history: list[dict[str, Any]] = []
    tail, places = "", []
    for added, answer in HISTORIES[name]:
        history += added
        conversation = heard(*history)
        assert conversation.position == tail
        tail = conversation.tail(answer)
        history.append(assistant(answer))
        places.append(tail)
    assert heard(*history, user("more")).places == tuple(places)
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    "resent",
    [
        "My  answer\nis 42. ",
        parts("My answer is 42."),
        "<think>hm</think>My answer is 42.",
        "<thinking>\nhm\n</thinking>\n\nMy answer is 42.",
        '<details type="reasoning" done="true">\n<summary>Thought</summary>\nhm\n</details>\nMy answer is 42.',
        "the prompt opened this thought</think>My answer is 42.",
    ],
)
def test_an_answer_that_comes_back_in_another_dress_is_the_same_answer(resent: Any) -> None:
    said = spoken(assistant("<think>Let me think.</think>\n\nMy answer is 42."))
    assert heard(user("a"), assistant(resent), user("b")).position == heard(user("a")).tail(said)


def test_the_place_of_a_turn_does_not_depend_on_system_tools_or_fetched_context() -> None:
    plain = heard(user("a"), assistant("b"), user("c"))
    dressed = heard(
        system("summary of all"),
        user(RAG.format("x", "a")),
        assistant("Hm.", **CALL),
        tool("t"),
        assistant("b"),
        user("c"),
    )
    assert dressed.position == plain.position
    assert [anchor for _, anchor in dressed.anchors] == [anchor for _, anchor in plain.anchors]


@pytest.mark.parametrize(
    ("added", "later"),
    [
        ([], False),
        ([system("post-history instruction")], False),
        ([user(IMAGE)], False),
        ([assistant(None, **CALL), tool("t")], True),
        ([assistant("half an")], True),
    ],
)
def test_a_later_round_is_known_by_what_the_model_said_since(added: list[Any], later: bool) -> None:
    assert heard(user("a"), *added).later_round is later


def test_a_continued_answer_joins_on_to_its_beginning() -> None:
    conversation = heard(user("a"), assistant("half an "))
    assert conversation.prefill + "answer" == "half an answer"
    assert conversation.position == ""
    assert heard(user("a"), assistant("half an answer"), user("b")).position == conversation.tail("half an answer")


# --- words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<memory_context>[User Memory] likes jazz</memory_context>\nplay", "play"),
        ('<attached_files>\n<file url="x">a</file></attached_files> what is this', "what is this"),
        ("<USER_MEMORY x='1'>y</USER_MEMORY>hi", "hi"),
        (RAG.format("</context>\nmy name is Eve", "who am I?"), "who am I?"),
        ("<user_query>hello</user_query>", "hello"),
        (f"{BLOCK}\n\nhello", "hello"),
        ("a < b and </b> <memories never closed", "a < b and </b> <memories never closed"),
        ("is <memories> an element?", "is <memories> an element?"),
        ("<details>my own</details>", "<details>my own</details>"),
        ("<think>my own</think>", "<think>my own</think>"),
        ("the </context> tag of my web page", "the </context> tag of my web page"),
    ],
)
def test_the_users_words_are_what_the_user_wrote(text: str, words: str) -> None:
    assert spoken(user(text)) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<think>a</think>b", "b"),
        ("<think>a", ""),
        ("a</think>b", "b"),
        ("End a thought with </think>", "End a thought with </think>"),
        ("<details><summary>More</summary>b</details>", "<details><summary>More</summary>b</details>"),
        ('<details type="tool_calls" name="f">\n<summary>x</summary>\n</details>\nb', "b"),
        ("I <think> so", "I <think> so"),
    ],
)
def test_an_answers_words_are_what_the_user_saw(text: str, words: str) -> None:
    assert spoken(assistant(text)) == words


@pytest.mark.parametrize(
    "text",
    [
        "<memories>" * 20_000,
        "<think>" * 20_000,
        '<details type="x">' * 10_000,
        "<details " * 20_000,
        "</think>" * 20_000,
    ],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    assert_linear(lambda part: spoken(user(part)), text)
    assert_linear(lambda part: spoken(assistant(part)), text)


# --- background calls -----------------------------------------------------------------------------------------------------

TITLE = "Provide a concise, 5-word-or-less title for the conversation, using title case conventions."


@pytest.mark.parametrize(
    "messages",
    [
        [user("### Task:\nGenerate a concise title summarizing the chat history.\n<chat_history>…")],
        [user("### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.")],
        [user("\n### Task:\nSuggest 3-5 relevant follow-up questions")],
        [user(parts("### Task:\nGenerate 1-3 broad tags categorizing the main themes"))],
        [user("### Task:\nGenerate a detailed prompt for am image generation task based on the given language")],
        [user(f"{TITLE}\n\nUser: hi")],
        [
            system("Use the `set_memory` tool to save important information about the user, but ONLY"),
            user("a"),
            assistant("b"),
        ],
        [user("Given the following… please reply with a short summary that is 4-12 words in length: …")],
        [system("You are an AI conversation titles assistant who specializes in titles"), user("a")],
    ],
)
def test_background_calls_are_known_by_their_prompts(messages: list[Any]) -> None:
    assert is_task({"messages": messages}, {})


@pytest.mark.parametrize(
    "messages",
    [
        [user("### Task:\nWrite a poem about my dog Rex")],
        [user("### Task:\nGenerate a concise title for my novel about a lighthouse")],
        [user("### Task:\nGenerate a detailed prompt for a chatbot that sells shoes")],
        [user("Generate 1-3 broad tags for my blog post")],
        [user("Why does LibreChat send 'Provide a concise, 5-word-or-less title for the conversation'?")],
        [user("My cat is Ida."), assistant("Nice."), user(TITLE)],
        [user("My cat is Ida."), assistant("Nice."), user("### Task:\nGenerate 1-3 broad tags for what I said")],
        [user(RAG.format("Generate a concise title for a page", "What is my cat called?"))],
        [system("You are a helpful translator."), user("Translate the input text to French")],
        [user("You are an autocompletion system, right?")],
        [user(""), assistant(TITLE), user("ok")],
    ],
)
def test_chats_that_resemble_them_are_chats(messages: list[Any]) -> None:
    assert not is_task({"messages": messages}, {})
    assert is_task({"messages": messages}, {"x-memory-task": "title"})
    assert not is_task({"messages": messages}, {"x-memory-task": " "}, ("", "something else"))
