# SPDX-License-Identifier: Apache-2.0
"""A BlueZ on the system bus with one adapter and one thermometer that beacons while it is looked for.

Run by itself, as root; it says `there` when it has the name. What it answers is what bleak needs to
scan: the objects, the filter, the start and the end of a discovery.
"""

from __future__ import annotations

import asyncio
from typing import Final

from dbus_fast import BusType, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

ADDRESS: Final = "00:00:5E:00:53:01"
"""Of the thermometer; from the range for documentation (RFC 9542)."""

_ADAPTER: Final = "/org/bluez/hci0"
_DEVICE: Final = f"{_ADAPTER}/dev_{ADDRESS.replace(':', '_')}"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_BEACON_S: Final = 0.1


def objects() -> dict[str, dict[str, dict[str, Variant]]]:
    """What org.freedesktop.DBus.ObjectManager tells of us."""
    adapter = {
        "Address": Variant("s", "00:00:5E:00:53:FF"),
        "Alias": Variant("s", "gateway"),
        "Roles": Variant("as", ["central"]),
        "Powered": Variant("b", True),
        "Discovering": Variant("b", False),
    }
    device = {
        "Address": Variant("s", ADDRESS),
        "AddressType": Variant("s", "random"),
        "Name": Variant("s", "thermometer"),
        "Alias": Variant("s", "thermometer"),
        "Adapter": Variant("o", _ADAPTER),
        "Connected": Variant("b", False),
        "Paired": Variant("b", False),
        "ServicesResolved": Variant("b", False),
        "UUIDs": Variant("as", []),
        "RSSI": Variant("n", -60),
    }
    return {
        _ADAPTER: {"org.bluez.Adapter1": adapter},
        _DEVICE: {"org.bluez.Device1": device},
    }


class Bluez:
    """The answers.

    Args:
        bus: connected.
    """

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus
        self._beacons = False

    def answer(self, message: Message) -> Message | bool:
        """What a method call gets; False for what is not ours."""
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        match message.member:
            case "GetManagedObjects":
                return Message.new_method_return(message, "a{oa{sa{sv}}}", [objects()])
            case "StartDiscovery" | "StopDiscovery":
                self._beacons = message.member == "StartDiscovery"
                self._changed(_ADAPTER, "Adapter1", "Discovering", Variant("b", self._beacons))
                return Message.new_method_return(message)
            case "SetDiscoveryFilter":
                return Message.new_method_return(message)
        return False

    async def beacon(self) -> None:
        """Tells of the thermometer again and again: bleak hears only what changes after a start."""
        strength = -60
        while True:
            await asyncio.sleep(_BEACON_S)
            strength = -61 if strength == -60 else -60
            if self._beacons:
                self._changed(_DEVICE, "Device1", "RSSI", Variant("n", strength))

    def _changed(self, path: str, interface: str, name: str, value: Variant) -> None:
        body = [f"org.bluez.{interface}", {name: value}, []]
        signal = Message.new_signal(path, _PROPERTIES, "PropertiesChanged", "sa{sv}as", body)
        self._bus.send(signal)


async def main() -> None:
    """Serves until it is ended."""
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    bluez = Bluez(bus)
    bus.add_message_handler(bluez.answer)
    await bus.request_name("org.bluez")
    print("there", flush=True)
    await bluez.beacon()


if __name__ == "__main__":
    asyncio.run(main())
