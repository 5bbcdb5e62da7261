"""The part of docs/configuration.md that people wrote. Its examples are loaded by a test."""

GUIDE = """
# Configuration

<!-- Generated from mailserver/config: edit schema.py or guide.py there, not this file. -->

One TOML file says everything. The server looks for the file given with `-c`, then `$MAILSERVER_CONFIG`,
then `./config.toml`, then `/etc/mailserver/config.toml`. Relative paths in it start from the file itself.

Every key has a default, so the file holds only what is yours. Times are written `"30s"`, `"5m"`, `"1h30m"`,
`"5d"`; sizes `"64 KiB"`, `"50 MiB"`; addresses `"192.0.2.1:25"`, `"[2001:db8::1]:25"`, `"*:25"` (all of
IPv4). Where a list is expected, one value may stand alone.

`mailserver check` reads the file as the server would and prints every fault at once:

```text
config.toml:7: smtp.lisen: unknown key, did you mean "listen"?
config.toml:12: relay[1].from: "10.1.2.3/8" has host bits set, write "10.0.0.0/8" or the address alone
```

`relay[1]` is the first `[[relay]]` of the file. After a change, `mailserver reload` takes all of it, or
nothing and says why; no connection is dropped.

## A server in one evening

A machine that receives mail for `example.test` and lets its users send:

```toml
hostname = "mail.example.test"       # what the MX record and the address's reverse record show
data_dir = "/var/lib/mailserver"
run_as = "mailserver"

[smtp]
listen = ["*:25", "[::]:25"]

[submission]
listen = ["*:587", "[::]:587"]
listen_tls = ["*:465", "[::]:465"]

[pop3]
listen = ["*:110", "[::]:110"]
listen_tls = ["*:995", "[::]:995"]

[domains."example.test"]
```

1. Point the MX record of `example.test` at `mail.example.test`, and the reverse record of the address back
   at it.
2. `mailserver check`, then start the server; without `[tls]` it makes a certificate of its own, which is
   enough for other servers but not for your users' programs: give it a real one soon.
3. `mailserver user add alice@example.test`. Accounts made so live in a database under `data_dir`; the file
   need not name them.
4. `mailserver explain --from alice@example.test --to someone@elsewhere.test --client 192.0.2.7` says what
   would happen to a message and which rule decides it.

## Who may send where

Three things are kept apart. *May connect*: everybody whom no `reject` rule names. *May write to our users*:
whoever may connect. *May send to other domains* (relay): whoever has logged in, and the addresses that a
`relay` rule names. Nothing else opens the server to others. The first rule that matches the client's
address decides:

```toml
[[relay]]
from = "192.168.1.13"                # a neighbour with a virus
action = "reject"

[[relay]]
from = "192.168.1."                  # the rest of the office; the same as 192.168.1.0/24
action = "relay"

[[relay]]
from = "2001:db8:1::/48"
action = "relay"
```

A rule that would let much of the internet relay (`0.0.0.0/0`, anything shorter than /8 or, for IPv6, /16)
is refused unless `even_the_whole_internet = true` stands beside it. IPv6 clients that are really IPv4
(`::ffff:192.168.1.5`) are judged by the IPv4 rules. The log names the rule that decided, with its line.

Whoever has logged in may use as sender of a message: the account's own address, every address whose mail
reaches its mailbox (aliases, a list it is on, a catch-all), and what `submission.senders` gives it. Any other
is refused with 553, on every listener.

```toml
[submission.senders]
"alice@example.test" = ["news@elsewhere.test", "*@shop.test"]    # an address, a whole domain
"printer@example.test" = "*"                                     # any
```

On the submission listeners a message without From, Date or Message-ID gets it, in front; nothing else of it
is touched; one without any header gets the empty line as well. An account that sends more than `[rates]`
allows loses nothing: what is beyond waits in the queue, held, mail to our own users too, until somebody has
looked (`mailserver queue list --account ADDRESS`) and says `mailserver queue release --account ADDRESS` or,
where a password was stolen, `queue remove --account ADDRESS`.

## Who gets what

```toml
postmaster = "alice@example.test"

[domains."example.test"]
catch_all = "alice"

[domains."example.test".aliases]
team = ["alice", "bob", "someone@remote.test"]
bob = ["bob", "archive@remote.test"]     # a copy elsewhere: its own name means the mailbox
info = "team"

[users."alice@example.test"]
password = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"

[users."bob@example.test"]
password = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g"
```

For an address in one of your domains, the first of these that exists decides: an alias of that name, the
mailbox, for `postmaster`, `abuse`, `hostmaster`, `root` and `mailer-daemon` the postmaster, the catch-all.
So a catch-all never takes mail from anybody. A name without `@` is of the same domain. Aliases may name
aliases; a loop is a fault. An unknown recipient is refused while the sender is still connected. Put names
with dots or `@` in quotes, as above.

## Accounts and logins

Accounts stand in this file, in the database that `mailserver user add` writes, or with somebody else. The
file takes what `mailserver user hash` prints; with `--scheme scram-sha-256` the account can log in by SCRAM,
too. Accounts of the database get their SCRAM keys when the password is set, or at the next login that shows
it, and weak hashes are replaced then. Programs that see SCRAM offered try nothing else, so it is offered once
it works for every account (`accounts.scram`).

Accounts of another server come with their passwords: `mailserver user import vpasswd --domain example.test`
takes vpopmail's files, passwd files of Dovecot and `/etc/shadow`, in any form of crypt(3) that the system knows.

Each account may have several app passwords, each for one program and, if you like, one service:
`mailserver user app-password add alice@example.test phone --scope pop3`. They are shown once; the listing
says when and from where each was used last.

Whole domains may be kept elsewhere. A backend that does not answer is never taken for "no such user": users
it knew lately get mail and log in, for others mail is put off.

```toml
[backends.sql]
type = "postgresql"                          # needs the extra: pip install mailserver[postgres]
domains = ["sql.test"]
url = "postgresql://mail@127.0.0.1/mail?passfile=/etc/mailserver/pgpass"
query = "SELECT password FROM users WHERE address = $1"

[backends.programs]
type = "checkpassword"
domains = ["prog.test"]
program = ["/usr/bin/checkpassword", "/bin/true"]      # qmail's interface
exists = ["/usr/local/bin/has-mailbox"]                # ends with 0 where $ADDRESS is an account, 1 where not
```

The server runs such programs as its own user and without new privileges: one that must read the system's
passwords cannot be set-uid.

Tokens of an identity provider (OAUTHBEARER, XOAUTH2) are verified by a program of yours. It reads the token
on descriptor 3, prints the address of the account it belongs to and ends with 0; with 1 where the token is no
good. Whatever else happens means "not now", and mail programs come again.

```toml
[bearer]
program = ["/usr/local/bin/whose-token", "--audience", "mail"]
```

A user changes the own password with `mailserver user passwd ADDRESS --old-password`, run as the server's
user: the control socket belongs to that user and root alone. To let people of this machine do so, give them
this command, with their own address, in sudo's rules.

## Where mail goes

Mail for other domains goes to the hosts that their MX records name, unless a route says otherwise:

```toml
[routes]
"remote.test" = "smtp://10.0.0.5:2525"       # this domain alone
"lists.test" = "lmtp://127.0.0.1:2424"
"*" = "smtps://relay.example.test"           # everything else through a smart host
```

Routes name exactly one domain, or all others with `"*"`. Ports left out are 25 (`smtp`), 465 (`smtps`), 24
(`lmtp`). What cannot be delivered is tried again after each wait of `queue.retry`, the last one repeating,
until it is `queue.max_age` old; then its sender gets a report.

```toml
[queue]
retry = ["5m", "15m", "1h", "3h"]
max_age = "5d"
delay_warning = "4h"
```
"""
