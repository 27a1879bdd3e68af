//! Curves as SVG. Each link has a colour that colour-blind people tell apart, and a marker that is there without colours, too.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::curves::{Curve, Curves, Point, State, Way};
use super::limits::CHANGE_LINES_MAX;
use super::scale::{Scale, figure};

/// Sizes, in pixels.
const WIDTH: u32 = 1000;
const TITLE_HEIGHT: u32 = 30;
const LANE_HEIGHT: u32 = 36;
const KEY_HEIGHT: u32 = 26;
const PANEL_HEIGHT: u32 = 186;
const AXIS_HEIGHT: u32 = 42;
const LEFT: u32 = 60;
const RIGHT: u32 = 20;
const MARKER: i32 = 4;
const FONT: &str = "sans-serif";

/// Colours of Okabe and Ito, without the one that is too light for a line on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const GRID: RGBColor = RGBColor(225, 225, 225);
const PALE: RGBColor = RGBColor(150, 150, 150);
/// Markers on each curve.
const MARKERS: f64 = 8.0;
/// Shapes of markers.
const SHAPES: usize = 5;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// What the picture is of.
pub(super) fn title(curves: &Curves) -> String {
    let header = &curves.header;
    let words = if header.name == header.command || header.name.is_empty() {
        format!("bondwire {}", header.command)
    } else {
        format!("bondwire {} ({})", header.command, header.name)
    };
    crate::failure::one_line(&format!("{words}, from {}, {:.1} s", header.started, curves.seconds))
}

/// The picture.
pub(super) fn svg(curves: &Curves) -> Result<String, DrawingAreaErrorKind<std::io::Error>> {
    let lanes_height = LANE_HEIGHT * curves.links.len() as u32 + KEY_HEIGHT;
    let panels = panels(curves);
    let height = TITLE_HEIGHT + lanes_height + PANEL_HEIGHT * panels.len() as u32 + AXIS_HEIGHT;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(title(curves), (LEFT as i32, 10), (FONT, 18).into_font()))?;
        let (_, below) = root.split_vertically(TITLE_HEIGHT);
        let (top, mut below) = below.split_vertically(lanes_height);
        lanes(&top, curves)?;
        let last = panels.len() - 1;
        for (place, panel) in panels.iter().enumerate() {
            let axis_height = if place == last { AXIS_HEIGHT } else { 0 };
            let (area, rest) = below.split_vertically(PANEL_HEIGHT + axis_height);
            below = rest;
            panel.draw(&area, curves, axis_height)?;
        }
        root.present()?;
    }
    Ok(svg)
}

/// The time at the right edge.
fn end(curves: &Curves) -> f64 {
    curves.seconds.max(0.1)
}

fn colour(place: usize) -> RGBColor {
    COLOURS[place % COLOURS.len()]
}

/// The marker of the link at `place`: shape and filling together differ for more links than there are colours.
fn marker(area: &Canvas<'_>, place: usize, (x, y): (i32, i32)) -> Drawn {
    let style = colour(place).stroke_width(2);
    let fill = if (place / SHAPES).is_multiple_of(2) { colour(place).filled() } else { WHITE.filled() };
    let m = MARKER;
    let corners = match place % SHAPES {
        0 => {
            area.draw(&Circle::new((x, y), m, fill))?;
            return area.draw(&Circle::new((x, y), m, style));
        }
        1 => vec![(x - m, y - m), (x + m, y - m), (x + m, y + m), (x - m, y + m)],
        2 => vec![(x, y - m - 1), (x + m + 1, y + m), (x - m - 1, y + m)],
        3 => vec![(x, y - m - 2), (x + m + 2, y), (x, y + m + 2), (x - m - 2, y)],
        _ => vec![(x - m - 1, y - m), (x + m + 1, y - m), (x, y + m + 1)],
    };
    area.draw(&Polygon::new(corners.clone(), fill))?;
    let outline: Vec<_> = corners.iter().chain(corners.first()).copied().collect();
    area.draw(&PathElement::new(outline, style))
}

/// A lane for each link, with its name and marker: a bar while it is active, a frame while it is suspect, a thin line while it
/// is gone. They are the legend, too.
fn lanes(area: &Canvas<'_>, curves: &Curves) -> Drawn {
    let several = curves.links.windows(2).any(|pair| pair[0].bond() != pair[1].bond());
    let width = f64::from(WIDTH - LEFT - RIGHT);
    let x = |seconds: f64| LEFT as i32 + (seconds / end(curves) * width).round() as i32;
    for (place, link) in curves.links.iter().enumerate() {
        let top = (LANE_HEIGHT * place as u32) as i32;
        marker(area, place, (LEFT as i32 + 6, top + 9))?;
        let name = link.label(several);
        area.draw(&Text::new(name, (LEFT as i32 + 18, top + 2), (FONT, 14).into_font()))?;
        lane(area, link, colour(place), top + 24, x, end(curves))?;
    }
    let (top, style) = ((LANE_HEIGHT * curves.links.len() as u32) as i32, (FONT, 12).into_font());
    type Sign = (&'static str, fn(&Canvas<'_>, (i32, i32)) -> Drawn);
    let signs: [Sign; 3] =
        [("active", sign_of_return), ("suspect", sign_of_suspicion), ("closed or missing", sign_of_end)];
    let mut left = LEFT as i32 + 6;
    for (words, sign) in signs {
        sign(area, (left, top + 10))?;
        area.draw(&Text::new(words, (left + 12, top + 4), style.clone()))?;
        left += 40 + 7 * words.len() as i32;
    }
    Ok(())
}

fn lane(
    area: &Canvas<'_>,
    link: &Curve,
    colour: RGBColor,
    y: i32,
    x: impl Fn(f64) -> i32,
    end: f64,
) -> Drawn {
    let nexts = link.changes.iter().skip(1).map(|(at, _)| *at).chain([end]);
    for ((from, state), to) in link.changes.iter().zip(nexts) {
        let (left, right) = (x(*from), x(to));
        match state {
            State::Active => {
                area.draw(&Rectangle::new([(left, y - 4), (right, y + 4)], colour.filled()))?;
            }
            State::Suspect | State::Joining => {
                area.draw(&Rectangle::new([(left, y - 4), (right, y + 4)], colour.stroke_width(1)))?;
            }
            State::Gone => {
                area.draw(&PathElement::new(vec![(left, y), (right, y)], PALE.stroke_width(1)))?;
            }
        }
    }
    for (place, (at, state)) in link.changes.iter().enumerate() {
        let at = (x(*at), y);
        match state {
            State::Active if place > 0 => sign_of_return(area, at)?,
            State::Suspect => sign_of_suspicion(area, at)?,
            State::Gone if place > 0 => sign_of_end(area, at)?,
            _ => {}
        }
    }
    Ok(())
}

fn sign_of_return(area: &Canvas<'_>, at: (i32, i32)) -> Drawn {
    area.draw(&Circle::new(at, 5, WHITE.filled()))?;
    area.draw(&Circle::new(at, 5, BLACK.stroke_width(2)))
}

fn sign_of_suspicion(area: &Canvas<'_>, (x, y): (i32, i32)) -> Drawn {
    let corners = vec![(x, y - 7), (x + 6, y + 4), (x - 6, y + 4)];
    area.draw(&Polygon::new(corners.clone(), WHITE.filled()))?;
    let outline: Vec<_> = corners.iter().chain(corners.first()).copied().collect();
    area.draw(&PathElement::new(outline, BLACK.stroke_width(2)))
}

fn sign_of_end(area: &Canvas<'_>, at: (i32, i32)) -> Drawn {
    area.draw(&Cross::new(at, 5, BLACK.stroke_width(3)))
}

/// What a chart shows of a point.
type Value = Box<dyn Fn(&Point) -> Option<f64>>;

/// One chart over the common time.
struct Panel {
    name: &'static str,
    scale: Scale,
    value: Value,
    /// The way of which the sum of all links is drawn, too.
    total: Option<Vec<(f64, f64)>>,
}

fn panels(curves: &Curves) -> [Panel; 4] {
    let highest = |value: &dyn Fn(&Point) -> Option<f64>| {
        let points = curves.links.iter().flat_map(|link| &link.points);
        points.filter_map(value).fold(0.0, f64::max)
    };
    let rates = |name, way: Way| {
        let value = move |point: &Point| Some(point.rate(way));
        let total = (curves.links.len() > 1).then(|| curves.total(way));
        let highest_total = total.iter().flatten().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let scale = Scale::bytes(highest(&value).max(highest_total), ["GB/s", "MB/s", "kB/s", "B/s"]);
        Panel { name, scale, value: Box::new(value), total }
    };
    let rtt = |point: &Point| point.rtt_ms;
    let in_flight = |point: &Point| point.in_flight_bytes;
    [
        rates("sent", Way::Out),
        rates("received", Way::In),
        Panel {
            name: "round trip",
            scale: Scale::of(highest(&rtt), 1.0, "ms"),
            value: Box::new(rtt),
            total: None,
        },
        Panel {
            name: "in flight",
            scale: Scale::bytes(highest(&in_flight), ["GB", "MB", "kB", "B"]),
            value: Box::new(in_flight),
            total: None,
        },
    ]
}

impl Panel {
    fn draw(&self, area: &Canvas<'_>, curves: &Curves, axis_height: u32) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .margin_top(26)
            .margin_right(RIGHT)
            .set_label_area_size(LabelAreaPosition::Left, LEFT)
            .set_label_area_size(LabelAreaPosition::Bottom, axis_height)
            .build_cartesian_2d(0.0..end(curves), 0.0..self.scale.top)?;
        let (seconds, value) = (|x: &f64| figure(*x, end(curves)), |y: &f64| self.scale.figure(*y));
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .x_labels(10)
            .y_labels(5)
            .x_label_formatter(&seconds)
            .y_label_formatter(&value)
            .label_style((FONT, 13));
        if axis_height > 0 {
            mesh.x_desc("seconds since the start of the recording");
        }
        mesh.draw()?;
        self.changes(&mut chart, curves)?;
        if let Some(total) = &self.total {
            let points = total.iter().map(|(at, rate)| (*at, self.scale.value(*rate)));
            chart.draw_series(LineSeries::new(points, BLACK.mix(0.35).stroke_width(1)))?;
        }
        let sum = if self.total.is_some() { " (thin line: all links)" } else { "" };
        let words = format!("{}, {}{sum}", self.name, self.scale.unit);
        area.draw(&Text::new(words, (LEFT as i32 + 8, 8), (FONT, 13).into_font()))?;
        for (place, link) in curves.links.iter().enumerate() {
            self.curve(&mut chart, area, place, link, curves)?;
        }
        Ok(())
    }

    /// A pale line at each change of a link.
    fn changes(&self, chart: &mut Chart<'_, '_>, curves: &Curves) -> Drawn {
        let changes: Vec<_> = curves.links.iter().flat_map(|link| link.changes.iter().skip(1)).collect();
        if changes.len() > CHANGE_LINES_MAX {
            return Ok(());
        }
        for (at, _) in changes {
            let line = DashedPathElement::new([(*at, 0.0), (*at, self.scale.top)], 3, 3, PALE);
            chart.draw_series([line])?;
        }
        Ok(())
    }

    fn curve(
        &self,
        chart: &mut Chart<'_, '_>,
        area: &Canvas<'_>,
        place: usize,
        link: &Curve,
        curves: &Curves,
    ) -> Drawn {
        let value = |point: &Point| (self.value)(point).map(|value| (point.to, self.scale.value(value)));
        // A curve has a gap where there is nothing to show.
        for part in link.points.split(|point| value(point).is_none()) {
            chart
                .draw_series(LineSeries::new(part.iter().filter_map(value), colour(place).stroke_width(2)))?;
        }
        let step = end(curves) / MARKERS;
        let share = (place as f64 + 0.5) / curves.links.len() as f64;
        for number in 0..MARKERS as u32 {
            let at = (f64::from(number) + share) * step;
            let point = link.points.iter().find(|point| point.from <= at && at < point.to).and_then(value);
            if let Some(point) = point {
                marker(area, place, local(chart, area, point))?;
            }
        }
        Ok(())
    }
}

/// Where a point of the chart is within its area.
fn local(chart: &Chart<'_, '_>, area: &Canvas<'_>, point: (f64, f64)) -> (i32, i32) {
    let (x, y) = chart.plotting_area().map_coordinate(&point);
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}
