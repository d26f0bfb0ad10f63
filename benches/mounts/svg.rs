//! Two kinds of chart as SVG: nothing has to be fetched, and it can be read on a light and on a dark page.

use std::fmt::Write as _;

use crate::page::number;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.h{font-size:16px;font-weight:600}.m{fill:#59636e}.n{font-size:11px}
.e{text-anchor:end}.c{text-anchor:middle}.bg{fill:#fff}.grid{stroke:#d1d9e0;stroke-width:1}.one{stroke:#59636e;stroke-width:1.5}
.spread{stroke:#1f2328;stroke-width:1.2;opacity:.75}.line{fill:none;stroke-width:2.5}
.s0{fill:#a9cbff;stroke:#a9cbff}.s1{fill:#5f9dff;stroke:#5f9dff}.s2{fill:#2667d9;stroke:#2667d9}.s3{fill:#0a3a9e;stroke:#0a3a9e}
.stock{fill:#8c6d1f;stroke:#8c6d1f}.hardened{fill:#2667d9;stroke:#2667d9}text.stock,text.hardened{stroke:none}
.line.stock,.line.hardened{fill:none}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#9198a1}.bg{fill:#0d1117}.grid{stroke:#2a313a}.one{stroke:#9198a1}
.spread{stroke:#e6edf3}.s0{fill:#1f4a99;stroke:#1f4a99}.s1{fill:#3670dd;stroke:#3670dd}.s2{fill:#6ba4ff;stroke:#6ba4ff}
.s3{fill:#b9d5ff;stroke:#b9d5ff}.stock{fill:#d9b44a;stroke:#d9b44a}.hardened{fill:#5f9dff;stroke:#5f9dff}}
";

const WIDTH: f64 = 760.0;

/// Above the chart: title, a sentence, legend.
const TOP: f64 = 96.0;

struct Svg(String);

macro_rules! put {
    ($svg:expr, $($text:tt)*) => {{
        // Writing into a string does not fail.
        let _ = writeln!($svg.0, $($text)*);
    }};
}

impl Svg {
    fn new(height: f64, title: &str, sentence: &str) -> Svg {
        let mut svg = Svg(String::new());
        put!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n<rect class=\"bg\" width=\"{WIDTH}\" \
             height=\"{height}\"/>"
        );
        svg.text("h", 24.0, 30.0, title);
        svg.text("m", 24.0, 50.0, sentence);
        svg
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        put!(self, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
    }

    fn line(&mut self, class: &str, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        put!(self, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>");
    }

    fn square(&mut self, class: &str, x: f64, y: f64) {
        put!(self, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"11\" height=\"11\"/>");
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// From values to places on a logarithmic axis.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value.ln() - self.least.ln()) / (self.most.ln() - self.least.ln());
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn ticks(&self, in_a_decade: &[f64]) -> Vec<f64> {
        let decades = -3..7;
        let all = decades.flat_map(|decade| in_a_decade.iter().map(move |one| one * 10f64.powi(decade)));
        all.filter(|tick| (self.least..=self.most).contains(tick)).collect()
    }
}

/// A tick without the zeros behind its point.
fn round(tick: f64) -> String {
    let text = number(tick);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A name, and what it is for each group: quartile, median, quartile.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) ratios: Vec<Option<[f64; 3]>>,
}

/// Bars that go from 1 to the ratio, to the right where hardened is faster.
pub(crate) fn bars(title: &str, sentence: &str, groups: &[&str], series: &[Series]) -> String {
    const BAR: f64 = 12.0;
    let group = BAR * series.len() as f64 + 14.0;
    let bottom = TOP + group * groups.len() as f64;
    let mut svg = Svg::new(bottom + 44.0, title, sentence);
    let all = || series.iter().flat_map(|series| series.ratios.iter().flatten());
    let least = all().map(|ratio| ratio[0]).fold(0.6, f64::min) / 1.15;
    let most = all().map(|ratio| ratio[2]).fold(1.6, f64::max) * 1.25;
    let axis = Axis { least, most, from: 264.0, to: WIDTH - 24.0 };
    for tick in axis.ticks(&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0]) {
        let x = axis.at(tick);
        svg.line("grid", [x, TOP - 6.0], [x, bottom]);
        svg.text("n m c", x, bottom + 16.0, &round(tick));
    }
    svg.text("n m", axis.from, bottom + 34.0, "← hardened does fewer operations per second");
    svg.text("n m e", axis.to, bottom + 34.0, "hardened does more →");
    // The names of the series differ in length.
    let mut x = 24.0;
    for (class, series) in series.iter().enumerate() {
        svg.square(&format!("s{class}"), x, 64.0);
        svg.text("", x + 17.0, 74.0, &series.name);
        x += 40.0 + 7.2 * series.name.chars().count() as f64;
    }
    for (index, name) in groups.iter().enumerate() {
        let top = TOP + group * index as f64;
        svg.text("e", axis.from - 12.0, top + (group - 14.0) / 2.0 + 5.0, name);
        for (class, series) in series.iter().enumerate() {
            let Some([low, median, high]) = series.ratios[index] else { continue };
            let y = top + BAR * class as f64;
            let (one, end) = (axis.at(1.0), axis.at(median));
            put!(
                svg,
                "<rect class=\"s{class}\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{}\"><title>{name}, {}: {median:.2}, \
                 quartiles {low:.2} and {high:.2}</title></rect>",
                one.min(end),
                (one - end).abs().max(0.5),
                BAR - 3.0,
                series.name
            );
            let middle = y + (BAR - 3.0) / 2.0;
            svg.line("spread", [axis.at(low), middle], [axis.at(high), middle]);
            match median < 1.0 {
                true => svg.text("n e", axis.at(low).min(end) - 5.0, middle + 4.0, &format!("{median:.2}")),
                false => svg.text("n", axis.at(high).max(end) + 5.0, middle + 4.0, &format!("{median:.2}")),
            }
        }
    }
    svg.line("one", [axis.at(1.0), TOP - 6.0], [axis.at(1.0), bottom]);
    svg.end()
}

/// One line: its class and name, and a value for each category.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// Lines over categories.
pub(crate) fn lines(title: &str, sentence: &str, categories: &[String], under: &str, lines: &[Line]) -> String {
    const HEIGHT: f64 = 300.0;
    let (bottom, left, right) = (TOP + HEIGHT, 84.0, WIDTH - 110.0);
    let mut svg = Svg::new(bottom + 52.0, title, sentence);
    let all = || lines.iter().flat_map(|line| line.values.iter().copied());
    let least = all().fold(f64::INFINITY, f64::min) / 1.6;
    let most = all().fold(0.0, f64::max) * 1.6;
    let axis = Axis { least, most, from: bottom, to: TOP - 20.0 };
    for tick in axis.ticks(&[1.0, 2.0, 5.0]) {
        svg.line("grid", [left, axis.at(tick)], [right, axis.at(tick)]);
        svg.text("n m e", left - 8.0, axis.at(tick) + 4.0, &format!("{tick}"));
    }
    let step = (right - left) / categories.len() as f64;
    let x = |index: usize| left + step * (index as f64 + 0.5);
    for (index, category) in categories.iter().enumerate() {
        svg.text("c", x(index), bottom + 20.0, category);
    }
    svg.text("n m c", (left + right) / 2.0, bottom + 40.0, under);
    for line in lines {
        let points: Vec<(f64, f64)> =
            line.values.iter().enumerate().map(|(index, value)| (x(index), axis.at(*value))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", line.name, path.join(" "));
        for (index, ((x, y), value)) in points.iter().zip(&line.values).enumerate() {
            put!(svg, "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>", line.name);
            let highest = lines.iter().all(|other| other.values[index] <= *value);
            let beside = if highest { y - 10.0 } else { y + 20.0 };
            svg.text("n c", *x, beside, &number(*value));
        }
        if let Some((x, y)) = points.last() {
            svg.text(line.name, x + 14.0, y + 4.0, line.name);
        }
    }
    svg.end()
}
