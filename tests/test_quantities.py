"""Amounts in many spellings: pairs judged by hand, and laws."""

from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from mres_jax.quantities import read_quantity, unit_of
from mres_jax.quantities._units import UNITS, _spellings
from mres_jax.scoring import unit_exact_match

SAME = [
    # money
    ("$12.50", "12.5 USD"),
    ("US$ 12,50", "12.5 dollars"),
    ("$12.50 USD", "12.50 dollars"),
    ("-$5", "$-5"),
    ("$1.2M", "1,200,000 dollars"),
    ("5 k$", "$5,000"),
    ("GBP 5 bn", "£5 billion"),
    ("$12 CAD", "C$12"),
    ("12 345,67 €", "€12,345.67"),
    ("1.234.567 €", "1234567 euros"),
    ("1\u2019234.50 CHF", "CHF 1234.5"),
    ("Rs. 500/-", "₹500"),
    ("12,34,567 rupees", "Rs 1234567"),
    ("3万元", "30000 yuan"),
    ("￥45.00", "45元"),
    ("50¢", "50 cents"),
    ("£5", "5 pounds"),
    ("£1.2m", "1.2 million Pounds"),
    ("£4-£6", "4 to 6 pounds"),
    ("5 lb", "5 pounds"),
    ("JPY 300", "300 Japanese yen"),
    ("¥300", "300 renminbi"),
    # shares and plain numbers
    ("61.1%", "61.1 percent"),
    ("\uff16\uff11.\uff11\uff05", "61.1 per cent"),
    ('"61.1%"', "61.10 %."),
    ("1.2 million", "1,200,000"),
    ("20k", "20,000"),
    ("three", "3"),
    ("+7", "7.0"),
    ("0,125", "0.125"),
    # mass, length, area, volume
    ("1,200 kg", "1200 kilograms"),
    ("5 k.g.", "5kg"),
    ("2.5 公斤", "2.5 kilos"),
    ("5 in.", "5 inches"),
    ("5'11\"", "5 ft 11 in"),
    ("6 feet, 2 inches", "6\u20322\u2033"),
    ("100 m\u00b2", "100 sq. m."),
    ("40 ft^2", "40 square feet"),
    ("½ cup", "0.5 cups"),
    ("2½ cups", "2 1/2 cup"),
    (".5 L", "0.50 litres"),
    ("330mL", "330 millilitres"),
    ("10 x 20 cm", "10cm \u00d7 20cm"),
    # time, temperature, speed
    ("1 h 30 min", "1 hour and 30 minutes"),
    ("45 secs", "45s"),
    ("5h 30m", "5 hours 30 minutes"),
    ("3m20s", "3 min 20 sec"),
    ("1 d 5h 30m", "1 day, 5 hours and 30 minutes"),
    ("30 fps", "30 frames per second"),
    ("12 个月", "12 months"),
    ("\u22125 \u00b0C", "-5 degrees Celsius"),
    ("20\u2103", "20 C"),
    ("65 km/h", "65 kph"),
    # power, data
    ("1.2e3 W", "1200 watts"),
    ("3\u00d710\u00b3 MW", "3000 megawatts"),
    ("5 kwh", "5 kilowatt hours"),
    ("16 GB", "16 gigabytes"),
    ("4\u20136 kg", "4 kg to 6 kg"),
    ("three pieces", "3 pcs"),
]
DIFFERENT = [
    ("5 m", "5 minutes"),
    ("1 km", "1000 m"),  # spellings only, no conversion
    ("61.1", "61.1%"),  # an amount without its unit is another answer
    ("12,50 €", "1250 €"),  # a decimal comma groups no digits
    ("1,250 €", "1.25 €"),
    ("5 MW", "5 mW"),
    ("5 MB", "5 Mb"),
    ("20 K", "20k"),
    ("$5", "C$5"),
    ("¥100", "100 yen"),  # ¥ is yuan here: which of the two a picture means it does not say
    ("£5", "6 pounds"),
    ("$5", "5 pounds"),
    ("£5", "5 pounds 3 ounces"),
    ("5 m", "5 min"),
    ("5 h 30 m", "5 h 30 ft"),
    ("5 km 30 m", "5 km 30 min"),
    ("4-6 kg", "4-7 kg"),
    ("10 x 20 cm", "20 x 10 cm"),
    ("-3", "3"),
    ("5 lb", "£5"),
    ("1/2 cup", "1.2 cups"),
    ("3 percent", "3 percentage points"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_amount_are_one_answer(one, other):
    assert unit_exact_match(one, ["0 kg", other]) == unit_exact_match(other, [one]) == 1.0


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_other_amounts_are_other_answers(one, other):
    assert unit_exact_match(one, [other]) == unit_exact_match(other, [one]) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "$", "a", "flight 124", "Room 5", "555-1234", "2024-05-06", "12:30", "1.2.3"),
        *("1,20,3", "$$5", "5 5", "- -5", "10 x 20", "5 kg CO2", "1/0 kg", "5 kg 3", "p. 5"),
        *("12 Long Lane", "9" * 5000, "1e99999", "$5 kg"),
        *("eighty", "tent", "tens", "sixteen", "Tennis"),  # no number with a unit behind it
    ],
)
def test_what_is_no_single_amount_is_compared_as_text(text):
    assert read_quantity(text) is None
    assert unit_exact_match(text, [text]) == 1.0


def test_a_unit_that_nobody_knows_is_compared_as_a_word():
    assert unit_exact_match("12.0 Apples", ["12 apples"]) == 1.0
    assert unit_exact_match("12 apples", ["12 pears"]) == 0.0


@given(
    st.fractions(0, 10**7, max_denominator=1).map(int),
    st.integers(0, 99),
    st.sampled_from(sorted(set(UNITS) - {"x", "#"})),
)
@settings(max_examples=150)
def test_grouped_and_plain_numbers_are_one_amount_with_every_unit(whole, cents, unit):
    plain, grouped = f"{whole}.{cents:02d} {unit}", f"{whole:,}.{cents:02d} {unit}"
    quantity = read_quantity(plain)
    assert quantity is not None
    assert quantity.parts == ((Fraction(100 * whole + cents, 100), unit),)
    assert read_quantity(grouped) == quantity


def test_every_spelling_is_of_one_unit_as_it_is_written():
    exact, _ = _spellings()
    count = sum(len(names.split(", ")) + 1 for names in UNITS.values())
    doubled = count - len(exact)
    assert doubled == 0, f"{doubled} spellings stand twice"
    for spelling, unit in exact.items():
        assert unit_of(spelling) == unit
    assert unit_of("mw") is unit_of("mb") is None  # milli or mega, bits or bytes: nobody knows


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_an_amount_or_none_and_equals_itself(text):
    quantity = read_quantity(text)
    assert quantity is None or quantity.parts
    assert unit_exact_match(text, [text]) == 1.0
