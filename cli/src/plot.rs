//! A recording as a picture: what each link carried, its round trip, what was in flight, and what happened to it.
//!
//! | part | job |
//! |---|---|
//! | [`read`] | lines of a recording, with the place of whatever is wrong |
//! | [`curves`] | samples and messages become curves and states; bounded, however long the recording; pure |
//! | [`scale`] | units and their labels; pure |
//! | [`draw`] | curves become SVG |
//! | [`limits`] | every bound |

mod curves;
mod draw;
mod limits;
mod read;
mod scale;

use std::fmt;
use std::path::{Path, PathBuf};

use self::curves::Curves;
use self::read::ReadError;
use crate::failure::{Exit, Failure};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
enum PlotError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot draw the picture: {0}")]
    Draw(String),
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

/// A picture to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    path: PathBuf,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Svg,
    Html,
}

impl Picture {
    /// Draws the recording at `recording`, of all bonds or of one, and writes the picture. Remarks go to the log.
    pub(crate) fn draw(&self, recording: &Path, bond: Option<u64>) -> Result<(), Failure> {
        self.try_draw(recording, bond).map_err(|error| Failure::new(Exit::Configuration, error))
    }

    fn try_draw(&self, recording: &Path, bond: Option<u64>) -> Result<(), PlotError> {
        let (curves, remarks) = read::read(recording, bond)?;
        for remark in remarks {
            tracing::warn!("{remark}");
        }
        let svg = draw::svg(&curves).map_err(|error| PlotError::Draw(error.to_string()))?;
        let text = match self.form {
            Form::Svg => svg,
            Form::Html => html(&curves, &svg),
        };
        std::fs::write(&self.path, text).map_err(|error| PlotError::Write { path: self.path.clone(), error })
    }
}

/// What the end of a file's name says.
pub(crate) fn parse_picture(text: &str) -> Result<Picture, String> {
    let path = PathBuf::from(text);
    let end = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let form = match end.as_str() {
        "svg" => Form::Svg,
        "html" | "htm" => Form::Html,
        _ => return Err("the name has to end in .svg or .html, which says what is drawn".to_owned()),
    };
    Ok(Picture { path, form })
}

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// A page with the picture in it, which needs nothing else.
fn html(curves: &Curves, svg: &str) -> String {
    let title = escaped(&draw::title(curves));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>body {{ margin: 1em; }} svg {{ max-width: 100%; height: auto; }}</style>\n{svg}\n</html>\n"
    )
}

/// Text that HTML takes as text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
