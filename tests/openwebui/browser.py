"""Run by the browser's own environment: reads a plan (JSON), does it in headless Chromium, and tells what was answered.

A plan: {"url", "user": {"email", "password"}, "chats": [{"say": [text …], "temporary"?, "picture"?}]}.
"""

import contextlib
import json
import os
import sys

from playwright.sync_api import Error, Page, sync_playwright

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
ANSWERED = "count => document.querySelectorAll('.copy-response-button').length > count"


def sign_in(page: Page, url: str, user: dict) -> None:
    page.goto(url)
    page.wait_for_selector("#email")
    page.fill("#email", user["email"])
    page.fill("#password", user["password"])
    page.click("button[type=submit]")
    page.wait_for_selector("#chat-input")
    with contextlib.suppress(Error):  # what is new in this version
        page.get_by_role("button", name="Okay, Let's Go!").click(timeout=2_000)


def say(page: Page, text: str) -> str:
    before = page.locator(".copy-response-button").count()
    page.click("#chat-input")
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_function(ANSWERED, arg=before)
    return page.locator(".chat-assistant").last.inner_text()


def main() -> None:
    plan = json.load(sys.stdin)
    answers = []
    with sync_playwright() as playwright:
        chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=QUIET)
        page = browser.new_page(viewport={"width": 1000, "height": 620}, color_scheme="light")
        page.set_default_timeout(90_000)
        sign_in(page, plan["url"], plan["user"])
        for chat in plan["chats"]:
            page.goto(plan["url"] + ("/?temporary-chat=true" if chat.get("temporary") else "/"))
            page.wait_for_selector("#chat-input")
            answers.append([say(page, text) for text in chat["say"]])
            page.wait_for_timeout(3_000)  # titles, tags and follow-ups are asked for behind the answer
            if "picture" in chat:
                page.mouse.move(500, 5)
                page.screenshot(path=chat["picture"])
        browser.close()
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
