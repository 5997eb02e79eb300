"""The confined process: what it renders is what transformers renders, and nothing keeps it or the program from ending."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import BadTemplate, TemplateRefuses
from mneme.measure.asking import render
from mneme.text.chat import chat_ids, render_chat, require_harmless
from tests.conftest import word_tokenizer

ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
TALK = [
    {"role": "user", "content": "ba be", "name": None},
    {"role": "assistant", "content": 'bi  <b>"bo"</b>', "reasoning": "bu", "tool_calls": [{"f": {"x": 1, "ä": None}}]},
]
TEMPLATES = {
    "plain": "{{ bos_token }}{% for m in messages %}{{ m.role }} : {{ m['content'] }}{{ eos_token }}\n{% endfor %}",
    "prompt": "{% if add_generation_prompt %}assistant :{% endif %}{% if tools is none %} none{% endif %}",
    "spaces": "  {%- for m in messages %}\n  {% if loop.last %}\n last {{ m.content|trim }}\n  {% endif %}\n{% endfor %}\n",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "json": "{{ messages | tojson }}{{ messages[1].tool_calls[0] | tojson(indent=2) }}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "reasoning": "{{ messages[1].thinking }} {{ messages[1].reasoning_content }} {{ messages[0].name is defined }}",
    "control": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "dict": "{{ dict(a=1).a }}{{ strftime_now('%Y') }}{{ messages[0].get('content').split(' ')[-1] }}",
    "macro": "{% macro say(m) %}[{{ m.content | upper }}]{% endmacro %}{{ say(messages[0]) }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("opened", [True, False])
def test_the_text_is_that_of_transformers(name: str, opened: bool) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATES[name]
    theirs = tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=opened)
    assert render_chat(TALK, tokenizer, add_generation_prompt=opened) == theirs
    ids = tokenizer.apply_chat_template(TALK, add_generation_prompt=opened, return_dict=True)["input_ids"]
    assert chat_ids(TALK, tokenizer, add_generation_prompt=opened) == list(ids)


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system prompt') }}",
        "{{ nothing.at.all }}",
        "{{ (",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[0] }}",
        "{% set ns = namespace(_a=1) %}",
        "{{ 1 / 0 }}",
    ],
)
def test_what_a_template_refuses_is_told(template: str) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(TemplateRefuses, match=r"refuses these 2 messages \(.*Give messages that it takes"):
        render_chat(TALK, tokenizer)
    require_harmless(tokenizer)


def test_a_refused_system_prompt_is_put_before_the_question() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('none') }}{% endif %}{{ messages[0].content }}"
    )
    assert render("ba", "be", tokenizer) == "be\n\nba"


def test_a_template_that_explodes_on_one_word_is_stopped_there() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% if 'bomb' in messages[0].content %}{{ 'a' * 10**11 }}{% endif %}{{ messages[0].content }}"
    require_harmless(tokenizer)
    with pytest.raises(BadTemplate, match="was stopped: it needs more than 1024 MB"):
        render("a bomb", None, tokenizer)
    assert render("none", None, tokenizer) == "none"


def test_ctrl_c_ends_it(request: pytest.FixtureRequest) -> None:
    assert confined("render", template="ready", variables={}) == "ready"
    # A shell that starts the tests in the background leaves SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            confined("render", template=ENDLESS, variables={})
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 1.9  # before its own limit
    assert confined("render", template="again", variables={}) == "again"


def test_it_ends_with_the_program() -> None:
    """Also where the program is killed."""
    program = (
        "from mneme import confined\n"
        "confined.confined('render', template='x', variables={})\n"
        "print(confined._process._child.pid, flush=True)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    child = int(done.stdout)
    for _ in range(200):
        try:
            state = Path(f"/proc/{child}/stat").read_text().split()[2]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the confined process is still there")


def test_it_has_neither_secrets_nor_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNEME_API_KEY", "secret")
    with pytest.raises((Refused, Exceeded)):
        confined("render", template="{{ lipsum.__globals__['os'].environ }}", variables={})


def test_a_limit_of_the_machine_is_no_fault_of_the_template() -> None:
    """Under `ulimit -t`, which batch systems set, no process may raise its limit: every template was said to be endless."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); from mneme.confined import confined; "
        "print(confined('match', patterns=['a+'], names=['caat']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
