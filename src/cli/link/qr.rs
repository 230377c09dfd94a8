//! An address as a QR code, for the camera of a phone.

use qrcode::types::Color;
use qrcode::{EcLevel, QrCode};

use crate::cli::terminal::OutputStyle;

/// Modules of light border around the code (ISO/IEC 18004).
const QUIET_ZONE: usize = 4;

/// Draws two rows of modules in one line of text. `None` where standard output is no terminal, or too small.
pub(super) fn draw(address: &str, style: OutputStyle) -> Option<String> {
    let (columns, rows) = style.size()?;
    let code = QrCode::with_error_correction_level(address, EcLevel::L).ok()?;
    let side = code.width() + 2 * QUIET_ZONE;
    if side > columns || side.div_ceil(2) >= rows {
        return None;
    }
    let is_dark = |row: usize, column: usize| {
        let inside = QUIET_ZONE..QUIET_ZONE + code.width();
        inside.contains(&row)
            && inside.contains(&column)
            && code[(column - QUIET_ZONE, row - QUIET_ZONE)] == Color::Dark
    };
    let lines = (0..side).step_by(2).map(|row| {
        let line: String =
            (0..side).map(|column| half_block(style, is_dark(row, column), is_dark(row + 1, column))).collect();
        // Cameras need dark on light, which only explicit colours ensure on any terminal: black on white.
        if style.has_colours() { format!("\x1b[38;5;16;48;5;231m{line}\x1b[0m") } else { line }
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// Without colours, drawn blocks are the light modules: most terminals have a dark background.
fn half_block(style: OutputStyle, upper_is_dark: bool, lower_is_dark: bool) -> char {
    match (upper_is_dark == style.has_colours(), lower_is_dark == style.has_colours()) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://provider.example/device?user_code=WDJB-MJHT";

    /// Parses the drawing: which modules are dark.
    fn read(drawn: &str, ink_is_dark: bool) -> Vec<Vec<bool>> {
        let line = |line: &str, upper: bool| -> Vec<bool> {
            let ink = |sign| matches!((sign, upper), ('█', _) | ('▀', true) | ('▄', false));
            line.chars().map(|sign| ink(sign) == ink_is_dark).collect()
        };
        drawn.lines().flat_map(|text| [line(text, true), line(text, false)]).collect()
    }

    #[test]
    fn a_code_is_drawn_where_it_fits_with_and_without_colours() {
        let plain = draw(ADDRESS, OutputStyle::new(false, Some((80, 24)))).unwrap();
        let coloured = draw(ADDRESS, OutputStyle::new(true, Some((80, 24)))).unwrap();
        let stripped = coloured.replace("\x1b[38;5;16;48;5;231m", "").replace("\x1b[0m", "");
        let modules = read(&plain, false);
        assert_eq!(read(&stripped, true)[..modules.len() - 1], modules[..modules.len() - 1]);
        let code = QrCode::with_error_correction_level(ADDRESS, EcLevel::L).unwrap();
        assert_eq!(modules[0].len(), code.width() + 8);
        for (row, line) in modules.iter().enumerate() {
            for (column, &dark) in line.iter().enumerate() {
                let inside = |at: usize| (4..4 + code.width()).contains(&at);
                let expected = inside(row) && inside(column) && code[(column - 4, row - 4)] == Color::Dark;
                assert_eq!(dark, expected, "{row}, {column}");
            }
        }
        assert!(draw(ADDRESS, OutputStyle::new(true, Some((modules[0].len() - 1, 50)))).is_none(), "too narrow");
        assert!(draw(ADDRESS, OutputStyle::new(true, Some((80, 19)))).is_none(), "too low");
        assert!(draw(ADDRESS, OutputStyle::new(true, None)).is_none(), "a pipe");
    }
}
