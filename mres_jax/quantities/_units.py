"""Spellings of units. Only spellings are joined, nothing is converted: 1 km is not 1000 m here."""

import functools
import re

# One line per unit: its spellings, in capitals where only capitals mean it. A spelling that means
# another unit in other capitals (MW, mW) counts as it is written; all others in any capitals.
UNITS = {
    "%": "percent, per cent, pct, percentage, 百分之",
    "‰": "per mille, permille, per mil",
    "pp": "percentage point, percentage points, ppt, ppts",
    "ppm": "parts per million",
    # money; ¥ is read as yuan, since the benchmark's pictures are English and Chinese, and is not
    # the same as 300 yen; "pounds" are a mass, and money where the other side is, see `scoring`
    "$": "usd, us$, us $, u.s. $, dollar, dollars, us dollar, us dollars, 美元, 美金",
    "CAD": "c$, ca$, canadian dollar, canadian dollars",
    "AUD": "a$, au$, australian dollar, australian dollars",
    "NZD": "nz$, new zealand dollar, new zealand dollars",
    "HKD": "hk$, hong kong dollar, hong kong dollars, 港元, 港币",
    "SGD": "s$, sg$, singapore dollar, singapore dollars",
    "TWD": "nt$, new taiwan dollar, new taiwan dollars, 新台币",
    "¢": "cent, cents, ct, cts",
    "€": "eur, euro, euros, 欧元",
    "£": "gbp, pound sterling, pounds sterling, british pound, british pounds, 英镑",
    "¥": "￥, cny, rmb, cn¥, yuan, chinese yuan, renminbi, 元, 块, 人民币",
    "JPY": "yen, japanese yen, jp¥, 円, 日元",
    "₹": "inr, rs, re, rupee, rupees, indian rupee, indian rupees",
    "₩": "krw, won, 韩元",
    "₽": "rub, rouble, roubles, ruble, rubles",
    "CHF": "sfr, swiss franc, swiss francs",
    "R$": "brl, real, reais",
    "₺": "try, turkish lira",
    "zł": "pln, zloty, zlotys, złoty",
    "kr": "krona, kronor, krone, kroner",
    "฿": "thb, baht",
    "₫": "vnd, dong",
    "₱": "php, peso, pesos",
    # mass
    "μg": "ug, mcg, microgram, micrograms, 微克",
    "mg": "milligram, milligrams, milligramme, milligrammes, 毫克",
    "g": "gr, gm, gms, gram, grams, gramme, grammes, 克",
    "kg": "kgs, kilo, kilos, kilogram, kilograms, kilogramme, kilogrammes, 千克, 公斤",
    "t": "tonne, tonnes, metric ton, metric tons, 吨",
    "lb": "lbs, pound, pounds, #",
    "oz": "ounce, ounces",
    # length
    "nm": "nanometer, nanometers, nanometre, nanometres, 纳米",
    "μm": "um, micron, microns, micrometer, micrometers, micrometre, micrometres, 微米",
    "mm": "millimeter, millimeters, millimetre, millimetres, 毫米",
    "cm": "centimeter, centimeters, centimetre, centimetres, 厘米, 公分",
    "m": "meter, meters, metre, metres, 米, 公尺",
    "km": "kms, kilometer, kilometers, kilometre, kilometres, 千米, 公里",
    "in": "\", '', inch, inches, 英寸",
    "ft": "', foot, feet, 英尺",
    "yd": "yds, yard, yards",
    "mi": "mile, miles, 英里",
    "nmi": "nautical mile, nautical miles, 海里",
    "px": "pixel, pixels, 像素",
    "pt": "pts, point, points",
    # area
    "mm2": "sq mm, square millimeter, square millimeters, square millimetres",
    "cm2": "sq cm, square centimeter, square centimeters, square centimetre, square centimetres",
    "m2": "sqm, sq m, square meter, square meters, square metre, square metres, 平方米, 平米",
    "km2": "sq km, square kilometer, square kilometers, square kilometre, square kilometres",
    "ft2": "sqft, sq ft, square foot, square feet, 平方英尺",
    "in2": "sq in, square inch, square inches",
    "mi2": "sq mi, square mile, square miles",
    "ha": "hectare, hectares, 公顷",
    "ac": "acre, acres, 英亩",
    # volume
    "ml": "mL, milliliter, milliliters, millilitre, millilitres, cc, 毫升",
    "cl": "centiliter, centiliters, centilitre, centilitres",
    "dl": "deciliter, deciliters, decilitre, decilitres",
    "l": "ltr, liter, liters, litre, litres, 升",
    "m3": "cbm, cubic meter, cubic meters, cubic metre, cubic metres, 立方米",
    "cm3": "cubic centimeter, cubic centimeters, cubic centimetre, cubic centimetres",
    "ft3": "cu ft, cubic foot, cubic feet",
    "gal": "gallon, gallons, 加仑",
    "qt": "quart, quarts",
    "pint": "pints",
    "cup": "cups",
    "fl oz": "fluid ounce, fluid ounces",
    "tsp": "teaspoon, teaspoons",
    "tbsp": "tablespoon, tablespoons",
    # time
    "ns": "nanosecond, nanoseconds",
    "μs": "us, microsecond, microseconds",
    "ms": "msec, millisecond, milliseconds, 毫秒",
    "s": "sec, secs, second, seconds, 秒",
    "min": "mins, minute, minutes, 分钟",
    "h": "hr, hrs, hour, hours, 小时",
    "d": "day, days, 天",
    "wk": "wks, week, weeks, 周, 星期",
    "mo": "mos, month, months, 个月",
    "yr": "yrs, year, years, y, 年",
    # temperature and angle
    "°C": "degc, deg c, c, celsius, degree celsius, degrees celsius, degrees c, centigrade, 摄氏度",
    "°F": "degf, deg f, f, fahrenheit, degrees fahrenheit, degrees f, 华氏度",
    "K": "kelvin, kelvins",
    "°": "deg, degs, degree, degrees, 度",
    # speed
    "km/h": "kmh, kph, kmph, km/hr, km per hour, kilometers per hour, kilometres per hour",
    "mph": "mi/h, mile per hour, miles per hour",
    "m/s": "mps, meters per second, metres per second, 米/秒",
    "kn": "kt, kts, knot, knots",
    "rpm": "r/min, revolutions per minute",
    "fps": "frame/s, frames/s, frame per second, frames per second, 帧/秒",
    # energy, power, electricity, pressure
    "J": "joule, joules",
    "kJ": "kilojoule, kilojoules, 千焦",
    "cal": "calorie, calories",
    "kcal": "kilocalorie, kilocalories, 千卡, 大卡",
    "Wh": "watt hour, watt hours",
    "kWh": "kilowatt hour, kilowatt hours, kilowatt-hour, kilowatt-hours, 千瓦时",
    "MWh": "megawatt hour, megawatt hours",
    "mW": "milliwatt, milliwatts",
    "W": "watt, watts, 瓦",
    "kW": "kilowatt, kilowatts, 千瓦",
    "MW": "megawatt, megawatts, 兆瓦",
    "GW": "gigawatt, gigawatts",
    "hp": "horsepower, 马力",
    "mV": "millivolt, millivolts",
    "V": "volt, volts, 伏",
    "kV": "kilovolt, kilovolts",
    "mA": "milliamp, milliamps",
    "A": "amp, amps, ampere, amperes, 安",
    "mAh": "milliamp hour, milliamp hours, 毫安时",
    "Ω": "ohm, ohms",
    "kΩ": "kiloohm, kiloohms",
    "MΩ": "megaohm, megaohms",
    "Hz": "hertz, 赫兹",
    "kHz": "kilohertz",
    "MHz": "megahertz",
    "GHz": "gigahertz",
    "dB": "decibel, decibels",
    "Pa": "pascal, pascals",
    "hPa": "hectopascal, hectopascals",
    "kPa": "kilopascal, kilopascals",
    "bar": "bars",
    "psi": "pounds per square inch",
    "mmHg": "mm hg, millimeters of mercury, millimetres of mercury",
    "N": "newton, newtons",
    # data; b is bits, B is bytes
    "bit": "bits",
    "B": "byte, bytes",
    "kB": "KB, kilobyte, kilobytes",
    "MB": "megabyte, megabytes",
    "GB": "gigabyte, gigabytes",
    "TB": "terabyte, terabytes",
    "kb": "Kb, kilobit, kilobits",
    "Mb": "megabit, megabits",
    "Gb": "gigabit, gigabits",
    "kbps": "kb/s, kbit/s",
    "Mbps": "Mb/s, Mbit/s, megabits per second",
    "Gbps": "Gb/s, Gbit/s, gigabits per second",
    "MB/s": "MBps, megabytes per second",
    "dpi": "dots per inch",
    # laboratory and counts
    "mg/dl": "mg/dL, mg per dl",
    "mmol/l": "mmol/L, mmol per l",
    "pcs": "pc, piece, pieces, 个, 件",
    "x": "times, fold, 倍",
}
CURRENCIES = frozenset(list(UNITS)[list(UNITS).index("$") : list(UNITS).index("μg")])
DOLLARS = frozenset({"$", "CAD", "AUD", "NZD", "HKD", "SGD", "TWD"})


def unit_of(text: str) -> str | None:
    """Returns the unit that a text spells, or None.

    Full stops and a caret before a power do not matter: `sq. ft.` is `ft2`, as `ft^2` is.

    Example:
      >>> unit_of("kilograms"), unit_of("MW"), unit_of("mW"), unit_of("mw")
      ('kg', 'MW', 'mW', None)
    """
    text = " ".join(text.replace(".", " ").split()).replace("^", "")
    text = re.sub(r"(?<=\b\w) (?=\w\b)", "", text)  # k. g. is kg
    exact, folded = _spellings()
    return exact.get(text) or folded.get(text.casefold())


@functools.cache
def _spellings() -> tuple[dict[str, str], dict[str, str]]:
    """Units by spelling, and by spelling in any capitals where that means one unit alone."""
    exact: dict[str, str] = {}
    meant: dict[str, set[str]] = {}
    for unit, names in UNITS.items():
        for name in (unit, *names.split(", ")):
            name = " ".join(name.replace(".", " ").split())
            exact[name] = unit
            meant.setdefault(name.casefold(), set()).add(unit)
    return exact, {name: units.pop() for name, units in meant.items() if len(units) == 1}
