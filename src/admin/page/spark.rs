//! Sparklines: the last values of a number as a small picture. Text beside it says the number.

use std::fmt::Write as _;

/// The height of the picture; its width is 100.
const HEIGHT: f64 = 30.0;
/// Space above the largest value, for half of the line.
const TOP: f64 = 1.5;

/// The paths of a sparkline, in a view box of 100 by 30.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spark {
    /// The line.
    pub line: String,
    /// The area below it.
    pub area: String,
}

impl Spark {
    /// Draws values, the oldest first, from zero to the largest. `None` for fewer than two: they make no line.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = u32::try_from(values.len()).ok().filter(|count| *count > 1)?;
        let largest = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let mut line = String::from("M");
        for (at, value) in (0..count).zip(values) {
            let x = 100.0 * f64::from(at) / f64::from(count - 1);
            let share = if largest > 0.0 && value.is_finite() { value.clamp(0.0, largest) / largest } else { 0.0 };
            let y = HEIGHT - 1.0 - share * (HEIGHT - 1.0 - TOP);
            let space = if at == 0 { "" } else { " " };
            let _ = write!(line, "{space}{x:.1} {y:.1}");
        }
        let area = format!("{line} 100 {HEIGHT:.0} 0 {HEIGHT:.0}Z");
        Some(Self { line, area })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(Spark::of(&[]), None);
        assert_eq!(Spark::of(&[1.0]), None);
        let spark = Spark::of(&[0.0, 10.0, 5.0]).unwrap();
        assert_eq!(spark.line, "M0.0 29.0 50.0 1.5 100.0 15.2");
        assert_eq!(spark.area, "M0.0 29.0 50.0 1.5 100.0 15.2 100 30 0 30Z");
        // Nothing happened: a flat line at the bottom.
        assert_eq!(Spark::of(&[0.0, f64::NAN]).unwrap().line, "M0.0 29.0 100.0 29.0");
    }
}
