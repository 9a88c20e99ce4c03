"""Native code is silenced, for a while."""

import os

import pytest

from meshrec.silence import quiet_stderr


def test_the_error_stream_is_silent_for_a_while_and_then_speaks_again(capfd):
    def say(words: str) -> None:
        os.write(2, words.encode())

    say("before,")
    with quiet_stderr():
        say("meanwhile,")
    say("after")
    with pytest.raises(ValueError, match="told"), quiet_stderr():
        raise ValueError("told")
    say("!")
    assert capfd.readouterr().err == "before,after!"
