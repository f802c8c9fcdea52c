#!/bin/sh
# Installs from Debian what some tests need beside Python: a browser, a RabbitMQ to compare with, RabbitMQ's Java
# client, and Node.js for amqplib. Without root (or sudo without a password) it says what will be skipped. Services that come with
# the packages are kept from starting: the tests start what they need on ports of their own.
set -eu

browser=chromium
missing=

have() {
    command -v "$1" >/dev/null 2>&1
}

shout() {
    echo "=================================================================================" >&2
    for line in "$@"; do
        echo "  $line" >&2
    done
    echo "=================================================================================" >&2
}

# Without a browser, a broker or a compiler the tests still run; in CI that would be a hole.
give_up() {
    shout "$@" "Tests that need them are SKIPPED. To have them, run as root:" "apt-get install$missing"
    [ -z "${CI:-}" ] || exit 1
    exit 0
}

have chromium || have chromium-browser || have google-chrome || missing="$missing $browser"
if ! have rabbitmq-server && ! [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    missing="$missing rabbitmq-server"
fi
[ -e /usr/share/java/amqp-client.jar ] || missing="$missing librabbitmq-client-java"
have javac || missing="$missing default-jdk-headless"
have node || missing="$missing nodejs"
have npm || missing="$missing npm"
[ -n "$missing" ] || exit 0

have apt-get || give_up "This is not Debian or Ubuntu; not installed:$missing"
if [ "$(id -u)" = 0 ]; then
    sudo=
elif sudo -n true 2>/dev/null; then
    sudo="sudo -n"
else
    give_up "Not root, and sudo asks for a password; not installed:$missing"
fi

echo "test: installing$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # 101 is "action forbidden" (invoke-rc.d's contract): packages do not start their services.
    printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
    $sudo chmod 755 "$policy"
    trap '$sudo rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
fi
# shellcheck disable=SC2086  # both are lists of words
if ! { $sudo apt-get -qq update && $sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get -qq install -y --no-install-recommends $missing >/dev/null; }; then
    give_up "apt-get failed; not installed:$missing"
fi

case $missing in
*rabbitmq-server*)
    # Nor at the next boot: it would take the broker's own ports.
    $sudo update-rc.d rabbitmq-server disable >/dev/null 2>&1 || true
    if $sudo rabbitmqctl --timeout 5 status >/dev/null 2>&1; then
        $sudo service rabbitmq-server stop
    fi
    ;;
esac
